"""What a file or folder holds, as one HTML page with a picture of every series."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from ctinv.invariance.infra.pages import page
from numpy.typing import NDArray

from .io.series import Series, find_series, reason_of
from .io.slices import CTSlice
from .pairs import region_of
from .windows import WINDOWS

__all__ = ["overview_html"]

_MOST = 40
_SIDE = 384


def overview_html(
    inspected: Mapping[str, Any],
    *,
    offset: float | None = None,
    scale: float | None = None,
    names: str | None = None,
) -> str:
    """One page that holds its pictures and loads nothing.

    The picture of a series is its middle file, in the grey window of its body part. Patient, series
    description and file names stand in it only where the tags say that identity was removed.

    Arguments:
        inspected: What :func:`~ctinv.invariance.data.io.describe.inspect` returned.
        offset: The offset that was given there.
        scale: The scale that was given there.
        names: ``keep`` to name patients, series and files all the same, ``anonymous`` never to; None
            to go by the tags.

    Raises:
        ImageError: The files can no longer be read.
    """
    target = Path(inspected["path"])
    series: tuple[Series, ...] = (Series(target.name, "", (target,)),)
    if target.is_dir():
        series = find_series(target, offset=offset, scale=scale).series
    by_key = {(one.key, one.patient): one for one in series}
    sections = []
    for number, row in enumerate(inspected["series"][:_MOST], start=1):
        one = by_key.get((row["key"], row["patient"]), series[min(number, len(series)) - 1])
        named = names == "keep" or (names is None and row["deidentified"])
        sections.append(_section(row, replace(one, offset=offset, scale=scale), number, named))
    keep = names == "keep"
    reasons = Counter(
        f"{Path(file).name + ': ' if keep else ''}{reason_of(Path(file), why)}"
        for file, why in inspected["skipped"].items()
    )
    slices = f"{inspected['slices']} CT slice{'s' * (inspected['slices'] != 1)}"
    return page(
        "overview.html.j2",
        title=f"{target.name + ': ' if keep else ''}{slices}",
        sections=sections,
        more=max(0, len(inspected["series"]) - _MOST),
        left_out=len(inspected["skipped"]),
        skipped=[why if count == 1 else f"{why} ({count} files)" for why, count in reasons.items()],
    )


def _section(row: Mapping[str, Any], series: Series, number: int, named: bool) -> dict[str, Any]:
    slices = _middle(series)
    facts = {
        "Patient": row["patient"] if named else "",
        "Slices": row["slices"],
        "Pixels": " × ".join(map(str, row["size"])),
        "Spacing": " × ".join(f"{mm:.4g}" for mm in row["spacing"]) + " mm"
        if row["spacing"]
        else "not stated",
        "Slice distance": f"{row['slice_distance']:g} mm" if row["slice_distance"] else "",
        "HU": f"{row['hu_range'][0]:g} to {row['hu_range'][1]:g}",
        "Not measured": f"{100 * row['outside_share']:.3g} % of the pixels" if row["outside_share"] else "",
        "Kernel": row["kernel"],
        "kVp": row["kvp"],
        "Manufacturer": row["manufacturer"],
        "Stored as": ", ".join(row["transfer_syntax"]),
        "Note": row["note"],
    }
    return {
        "name": str(row["description"] or row["key"]) if named else f"Series {number}",
        "picture": _png(slices[len(slices) // 2].hu),
        "facts": [(name, value) for name, value in facts.items() if value],
    }


def _middle(series: Series) -> list[CTSlice]:
    """The slices of the file in the middle, or of the nearest one that can be read."""
    middle = len(series.files) // 2
    for file in sorted(series.files, key=lambda f: abs(series.files.index(f) - middle)):
        try:
            return replace(series, files=(file,)).read()
        except ImageError as error:
            reason = error
    raise reason


def _png(hu: NDArray[np.float32]) -> bytes:
    from matplotlib.image import imsave

    low, high = WINDOWS[region_of(hu)].limits
    step = max(1, -(-max(hu.shape) // _SIDE))
    file = io.BytesIO()
    imsave(file, hu[::step, ::step], cmap="gray", vmin=low, vmax=high, format="png")
    return file.getvalue()
