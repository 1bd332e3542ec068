"""What a file or folder holds, in words and numbers that JSON can carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError

from .arrays import array_kind
from .dicom import open_ct
from .order import steps_of
from .series import Found, Series, find_series
from .tags import floats

__all__ = ["inspect"]

_Progress = Callable[[str, int, int], None]


def inspect(
    path: str | Path,
    *,
    offset: float | None = None,
    scale: float | None = None,
    progress: _Progress | None = None,
) -> dict[str, Any]:
    """What a file or folder holds, in words and numbers that JSON can carry.

    Arguments:
        path: See :func:`~ctinv.invariance.data.io.read.read`; several series are described one by one.
        offset: See there.
        scale: See there.
        progress: Told ("series", done, total).

    Returns:
        ``path``, ``slices``, ``skipped`` (file to reason) and ``series``: for each its ``key``,
        ``description``, ``patient``, ``files``, ``slices``, ``size`` [H, W], ``spacing`` in mm,
        ``slice_distance`` in mm, ``hu_range``, ``outside_share`` (pixels not measured), ``rescale``
        (slope and intercept pairs), ``transfer_syntax``, ``kernel``, ``manufacturer``, ``kvp``,
        ``deidentified`` (the tags say that identity was removed) and ``note`` (doubts about the values,
        missing slices and the like), None where there is none.

    Raises:
        ImageError: Nothing there that is CT and readable.
    """
    target = Path(path)
    if target.is_dir():
        scans = find_series(target, offset=offset, scale=scale)
    else:
        if not target.exists():
            raise ImageError(f"{target} does not exist; give a CT slice or a folder of slices")
        scans = Found((Series(target.name, "", (target,), offset=offset, scale=scale),))
    rows: list[dict[str, Any]] = []
    skipped = list(scans.skipped)
    for done, series in enumerate(scans.series):
        try:
            rows.append(_describe(series, skipped))
        except ImageError as error:
            if len(scans.series) == 1:
                raise
            skipped += [(file, str(error)) for file in series.files]
        if progress is not None:
            progress("series", done + 1, len(scans.series))
    if not rows:
        raise ImageError(f"{target} holds no CT slice that can be read: {skipped[0][1]}")
    return {
        "path": str(target),
        "slices": sum(row["slices"] for row in rows),
        "series": rows,
        "skipped": {str(file): reason for file, reason in skipped},
    }


def _describe(series: Series, skipped: list[tuple[Path, str]]) -> dict[str, Any]:
    reading = series.load()
    skipped += reading.left_out
    slices, steps = reading.slices, steps_of(reading.slices)
    bad = {file for file, _ in reading.left_out}
    headers = [open_ct(f, pixels=False) for f in series.files if array_kind(f) is None and f not in bad]
    stated = [s.meta["slice_spacing"] for s in slices if "slice_spacing" in s.meta] if len(slices) > 1 else []
    steps = [step for step in steps if step > 0.0] or stated
    return {
        "key": series.key if "#" in series.key else str(slices[0].meta.get("series_uid", series.key)),
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
        "deidentified": all(s.meta.get("deidentified", False) for s in slices),
        "note": "; ".join(reading.notes) or None,
    }


def _rescales(headers: Sequence[Any]) -> list[list[float]]:
    pairs = {
        (slope[0], intercept[0])
        for h in headers
        if (slope := floats(h.get("RescaleSlope"), 1)) and (intercept := floats(h.get("RescaleIntercept"), 1))
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
