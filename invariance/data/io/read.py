"""CT slices from a file or a folder, whatever the format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError

from .arrays import array_kind, read_array
from .dicom import is_localizer, open_ct, read_frames
from .slices import CTSlice

__all__ = ["Found", "Series", "default_slice", "find_series", "inspect", "read"]

_Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Series:
    """The files of one CT series, in no particular order.

    Arguments:
        key: What picks it: the series UID, or for files that are not DICOM their folder and suffix.
        description: The series description.
        files: Its files.
        patient: Patient id, or the name of the folder.
        number: Series number, if any.
        offset: See :func:`read`.
    """

    key: str
    description: str
    files: tuple[Path, ...]
    patient: str = ""
    number: str = ""
    offset: float = 0.0

    def read(self, progress: _Progress | None = None) -> list[CTSlice]:
        """Its slices, sorted by place along the slice normal, else by number, else by name."""
        slices: list[CTSlice] = []
        seen: set[Any] = set()
        for done, file in enumerate(self.files):
            for part in _read_file(file, self.offset):
                name = (part.meta.get("sop_uid", str(file)), part.meta.get("frame"))
                if name not in seen or array_kind(file) is not None:
                    slices.append(part)
                seen.add(name)
            if progress is not None:
                progress("reading", done + 1, len(self.files))
        return _sorted(slices)

    def __str__(self) -> str:
        text = self.description or self.key
        number = f"{self.number} " if self.number else ""
        return f"{number}{text!r} ({len(self.files)} files, {self.key})"


@dataclass(frozen=True)
class Found:
    """What a folder holds: its CT series and the files left out, with the reason."""

    series: tuple[Series, ...]
    skipped: tuple[tuple[Path, str], ...] = field(default=())


def read(
    path: str | Path, *, series: str | None = None, offset: float = 0.0, progress: _Progress | None = None
) -> list[CTSlice]:
    """Read CT slices.

    Arguments:
        path: A DICOM file (classic or multi-frame), ``.npy``, ``.mhd``, ``.mha``, ``.nii``, ``.nii.gz``
            or ``.tif`` in HU, or a folder that holds one series of such files at any depth.
        series: Which series of a folder: its UID, number or description (the start suffices).
        offset: What files other than DICOM add to their HU, for example 1024.
        progress: Told ("reading", done, total).

    Returns:
        The slices, sorted by their place along the slice normal, not by file name.

    Raises:
        ImageError: Nothing there, not CT, not readable, or several series and none chosen.
    """
    target = Path(path)
    if not target.exists():
        raise ImageError(f"{target} does not exist; give a CT slice or a folder of slices")
    if not target.is_dir():
        return _sorted(_read_file(target, offset))
    found = find_series(target, offset=offset)
    return _choose(target, found.series, series).read(progress)


def default_slice() -> CTSlice:
    """A real CT slice that needs no download: 128 x 128 pixels, shipped with pydicom."""
    from pydicom.data import get_testdata_file

    name = get_testdata_file("CT_small.dcm", download=False)
    if name is None:
        raise ImageError("pydicom came without its sample CT_small.dcm; give a CT slice of your own")
    return read_frames(Path(str(name)))[0]


def find_series(folder: str | Path, *, offset: float = 0.0) -> Found:
    """Every CT series under a folder; only headers are read.

    Raises:
        ImageError: No CT in it; the message tells what it holds instead.
    """
    root = Path(folder)
    groups: dict[str, list[Path]] = {}
    about: dict[str, tuple[str, str, str]] = {}
    skipped: list[tuple[Path, str]] = []
    for file in sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".")):
        kind = array_kind(file)
        if kind is not None:
            key = (
                str(file.relative_to(root))
                if kind != ".npy"
                else str(file.parent.relative_to(root) / "*.npy")
            )
            about.setdefault(key, (key, file.parent.name, ""))
        else:
            try:
                dataset = open_ct(file, pixels=False)
                if is_localizer(dataset):
                    raise ImageError(f"{file} is a scout view (localizer)")
            except ImageError as error:
                if not _belongs_to_a_header(file):
                    skipped.append((file, str(error)))
                continue
            key = str(dataset.get("SeriesInstanceUID", "") or file.parent.relative_to(root))
            words = ("SeriesDescription", "PatientID", "SeriesNumber")
            values = [str(dataset.get(w, "") or "").strip() for w in words]
            about.setdefault(key, (values[0], values[1] or file.parent.name, values[2]))
        groups.setdefault(key, []).append(file)
    if not groups:
        raise ImageError(_nothing(root, skipped))
    # A DICOM folder often carries masks or previews; only without DICOM do arrays count.
    dicom = {k for k in groups if array_kind(groups[k][0]) is None}
    keys = sorted(dicom or groups)
    return Found(
        tuple(
            Series(k, about[k][0], tuple(_natural(groups[k])), about[k][1], about[k][2], offset) for k in keys
        ),
        tuple(skipped),
    )


def inspect(path: str | Path, *, offset: float = 0.0, progress: _Progress | None = None) -> dict[str, Any]:
    """What a file or folder holds, in words and numbers that JSON can carry.

    Arguments:
        path: See :func:`read`; several series are described one by one.
        offset: See :func:`read`.
        progress: Told ("series", done, total).

    Returns:
        ``path``, ``slices``, ``skipped`` (file to reason) and ``series``: for each its ``key``,
        ``description``, ``patient``, ``files``, ``slices``, ``size`` [H, W], ``spacing`` in mm,
        ``slice_distance`` in mm, ``hu_range``, ``outside_share`` (pixels not measured), ``rescale``
        (slope and intercept pairs), ``transfer_syntax``, ``kernel``, ``manufacturer``, ``kvp``.

    Raises:
        ImageError: Nothing there that is CT and readable.
    """
    target = Path(path)
    if target.is_dir():
        found = find_series(target, offset=offset)
    else:
        if not target.exists():
            raise ImageError(f"{target} does not exist; give a CT slice or a folder of slices")
        found = Found((Series(target.name, "", (target,), offset=offset),))
    rows = []
    for done, series in enumerate(found.series):
        rows.append(_describe(series))
        if progress is not None:
            progress("series", done + 1, len(found.series))
    return {
        "path": str(target),
        "slices": sum(row["slices"] for row in rows),
        "series": rows,
        "skipped": {str(file): reason for file, reason in found.skipped},
    }


def _describe(series: Series) -> dict[str, Any]:
    slices = series.read()
    heights = [s.height for s in slices]
    steps = [b - a for a, b in pairwise(heights) if a is not None and b is not None]
    headers = [open_ct(f, pixels=False) for f in series.files if array_kind(f) is None]
    return {
        "key": str(slices[0].meta.get("series_uid", series.key)),
        "description": series.description or str(slices[0].meta.get("series_description", "")),
        "patient": series.patient or str(slices[0].meta.get("patient", "")),
        "files": len(series.files),
        "slices": len(slices),
        "size": _common([list(s.shape) for s in slices]),
        "spacing": _common([None if s.spacing is None else list(s.spacing) for s in slices]),
        "slice_distance": round(float(np.median(steps)), 4) if steps else None,
        "hu_range": [min(float(s.hu.min()) for s in slices), max(float(s.hu.max()) for s in slices)],
        "outside_share": round(float(np.mean([1.0 - s.valid.mean() for s in slices])), 4),
        "rescale": _rescales(headers),
        "transfer_syntax": sorted({_syntax(h) for h in headers}),
        "kernel": _common([s.meta.get("kernel") for s in slices]),
        "manufacturer": _common([s.meta.get("manufacturer") for s in slices]),
        "kvp": _common([s.meta.get("kvp") for s in slices]),
        "note": _common([s.meta.get("note") for s in slices]),
    }


def _rescales(headers: Sequence[Any]) -> list[list[float]]:
    pairs = {
        (float(h.RescaleSlope), float(h.RescaleIntercept))
        for h in headers
        if h.get("RescaleSlope") is not None and h.get("RescaleIntercept") is not None
    }
    return [list(pair) for pair in sorted(pairs)]


def _syntax(header: Any) -> str:
    uid = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    return str(uid.name) if uid is not None else "not stated"


def _common(values: Sequence[Any]) -> Any:
    """The value all share, else the most frequent one."""
    counts = Counter(map(repr, values))
    best = counts.most_common(1)[0][0]
    return next(v for v in values if repr(v) == best)


def _read_file(path: Path, offset: float) -> list[CTSlice]:
    if array_kind(path) is not None:
        return read_array(path, offset)
    if path.suffix.lower() in (".raw", ".zraw"):
        raise ImageError(f"{path} is bare data without a header; give the .mhd file beside it")
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".gif"):
        raise ImageError(f"{path} is a picture without HU; give DICOM, .npy, .mhd, .nii or .tif in HU")
    return read_frames(path)


def _sorted(slices: list[CTSlice]) -> list[CTSlice]:
    heights = [s.height for s in slices]
    numbers = [s.meta.get("instance") for s in slices]
    if all(h is not None for h in heights):
        return [
            s
            for _, s in sorted(
                enumerate(slices), key=lambda p: (p[1].height, p[1].meta.get("instance", 0), p[0])
            )
        ]
    if all(n is not None for n in numbers) and len(set(numbers)) == len(slices):
        return sorted(slices, key=lambda s: s.meta["instance"])
    return slices


def _choose(root: Path, found: Sequence[Series], wanted: str | None) -> Series:
    listed = "; ".join(str(s) for s in found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise ImageError(
            f"{root} holds {len(found)} series; pick one with series=UID, number or description: {listed}"
        )
    exact = [s for s in found if wanted in (s.key, s.number, s.description)]
    close = exact or [s for s in found if s.key.startswith(wanted) or s.description.startswith(wanted)]
    if len(close) == 1:
        return close[0]
    problem = "no series" if not close else f"{len(close)} series"
    raise ImageError(f"{root}: {problem} answer to series={wanted!r}; it holds: {listed}")


def _belongs_to_a_header(file: Path) -> bool:
    return file.suffix.lower() in (".raw", ".zraw") and any(file.parent.glob("*.mhd"))


def _natural(files: Sequence[Path]) -> list[Path]:
    return sorted(files, key=lambda p: [int(w) if w.isdigit() else w for w in re.split(r"(\d+)", str(p))])


def _nothing(root: Path, skipped: Sequence[tuple[Path, str]]) -> str:
    if not skipped:
        return f"{root} is empty; give a folder of CT slices"
    reasons = "; ".join(reason for _, reason in skipped[:3])
    more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    return f"{root} holds no CT slice among {len(skipped)} files: {reasons}{more}"
