"""CT slices from a file or a folder, whatever the format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ctinv.adapters.errors import ImageError

from .dicom import read_frames
from .series import Found, Reading, Series, find_series
from .slices import CTSlice

__all__ = ["Found", "Reading", "Series", "choose_series", "default_slice", "find_series", "load", "read"]

_Progress = Callable[[str, int, int], None]


def read(
    path: str | Path,
    *,
    series: str | None = None,
    offset: float | None = None,
    scale: float | None = None,
    progress: _Progress | None = None,
) -> list[CTSlice]:
    """Read CT slices.

    Arguments:
        path: A DICOM file (classic or multi-frame), ``.npy``, ``.npz``, ``.mhd``, ``.mha``, ``.nii``,
            ``.nii.gz``, ``.nrrd`` or ``.tif`` in HU, or a folder that holds one series of such files at
            any depth.
        series: Which series of a folder: its UID, number or description (the start suffices).
        offset: What must be taken off to come to HU, for example 1024 where the file holds HU + 1024;
            0 says that the values are HU, whatever they look like. None: nothing is known.
        scale: What the values must be multiplied by before that; None for 1.
        progress: Told ("reading", done, total).

    Returns:
        The slices, sorted by their place along the slice normal, not by file name. A slice whose
        values do not look like HU says so in ``meta["doubt"]``.

    Raises:
        ImageError: Nothing there, not CT, not readable, or several series and none chosen.
    """
    return list(load(path, series=series, offset=offset, scale=scale, progress=progress).slices)


def load(
    path: str | Path,
    *,
    series: str | None = None,
    offset: float | None = None,
    scale: float | None = None,
    progress: _Progress | None = None,
) -> Reading:
    """The slices of :func:`read` with the files that were left out and notes on the series.

    Raises:
        ImageError: See :func:`read`.
    """
    chosen, skipped = choose_series(path, series=series, offset=offset, scale=scale)
    reading = chosen.load(progress)
    return replace(reading, left_out=(*skipped, *reading.left_out))


def choose_series(
    path: str | Path,
    *,
    series: str | None = None,
    offset: float | None = None,
    scale: float | None = None,
) -> tuple[Series, tuple[tuple[Path, str], ...]]:
    """The series that :func:`read` reads, and the files of the folder that belong to none.

    Raises:
        ImageError: Nothing there, no CT, or several series and none chosen.
    """
    target = Path(path)
    if not target.exists():
        raise ImageError(f"{target} does not exist; give a CT slice or a folder of slices")
    if not target.is_dir():
        return Series(target.name, "", (target,), offset=offset, scale=scale), ()
    scans = find_series(target, offset=offset, scale=scale, all_derived=series is not None)
    return _choose(target, scans.series, series), scans.skipped


def default_slice() -> CTSlice:
    """A real CT slice that needs no download: 128 x 128 pixels, shipped with pydicom."""
    from pydicom.data import get_testdata_file

    name = get_testdata_file("CT_small.dcm", download=False)
    if name is None:
        raise ImageError("pydicom came without its sample CT_small.dcm; give a CT slice of your own")
    one = read_frames(Path(str(name)))[0]
    return replace(one, meta={**one.meta, "keep_name": True})


def _choose(root: Path, series: Sequence[Series], wanted: str | None) -> Series:
    listed = "; ".join(str(s) for s in series[:8]) + (
        f"; and {len(series) - 8} more" if len(series) > 8 else ""
    )
    if wanted is None:
        if len(series) == 1:
            return series[0]
        raise ImageError(
            f"{root} holds {len(series)} series; pick one with series=UID, number or description: {listed}"
        )
    exact = [s for s in series if wanted in (s.key, s.number, s.description)]
    close = exact or [s for s in series if s.key.startswith(wanted) or s.description.startswith(wanted)]
    if len(close) == 1:
        return close[0]
    problem = "no series" if not close else f"{len(close)} series"
    raise ImageError(f"{root}: {problem} answer to series={wanted!r}; it holds: {listed}")
