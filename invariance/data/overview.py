"""What a file or folder holds, as one HTML page with a picture of every series."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.invariance.infra.pages import page
from numpy.typing import NDArray

from .io.read import Series, find_series
from .lowdose import region_of
from .windows import WINDOWS

__all__ = ["overview_html"]

_MOST = 40
_SIDE = 384


def overview_html(found: Mapping[str, Any], *, offset: float = 0.0) -> str:
    """One page that holds its pictures and loads nothing.

    The picture of a series is its middle file, in the grey window of its body part.

    Arguments:
        found: What :func:`~ctinv.invariance.data.io.read.inspect` returned.
        offset: The offset that was given there.

    Raises:
        ImageError: The files can no longer be read.
    """
    target = Path(found["path"])
    series: tuple[Series, ...] = (Series(target.name, "", (target,), offset=offset),)
    if target.is_dir():
        series = find_series(target, offset=offset).series
    sections = [_section(row, one) for row, one in zip(found["series"][:_MOST], series[:_MOST], strict=True)]
    return page(
        "overview.html.j2",
        title=f"{target.name}: {found['slices']} CT slice{'s' * (found['slices'] != 1)}",
        sections=sections,
        more=max(0, len(series) - _MOST),
        skipped=list(found["skipped"].values()),
    )


def _section(row: Mapping[str, Any], series: Series) -> dict[str, Any]:
    middle = len(series.files) // 2
    slices = Series(series.key, "", (series.files[middle],), offset=series.offset).read()
    facts = {
        "Patient": row["patient"],
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
        "name": str(row["description"] or row["key"]),
        "picture": _png(slices[len(slices) // 2].hu),
        "facts": [(name, value) for name, value in facts.items() if value],
    }


def _png(hu: NDArray[np.float32]) -> bytes:
    from matplotlib.image import imsave

    low, high = WINDOWS[region_of(hu)].limits
    step = max(1, -(-max(hu.shape) // _SIDE))
    file = io.BytesIO()
    imsave(file, hu[::step, ::step], cmap="gray", vmin=low, vmax=high, format="png")
    return file.getvalue()
