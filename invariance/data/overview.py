"""What a file or folder holds, as one HTML page with a picture of every series."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .io.read import Series, find_series
from .metrics import WINDOWS
from .sources import region_of

__all__ = ["overview_html"]

_MOST = 40
_SIDE = 384
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#1a1d21;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "section{display:flex;gap:1.5rem;flex-wrap:wrap;border-top:1px solid #d5d9de;padding:1rem 0}"
    "h2{flex-basis:100%;margin:0;font-size:1.05rem;overflow-wrap:anywhere}"
    "img{max-width:100%;background:#000}th{text-align:left;padding-right:1rem;font-weight:500}"
    "td,li{overflow-wrap:anywhere}"
)


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
    pages = [_section(row, one) for row, one in zip(found["series"][:_MOST], series[:_MOST], strict=True)]
    if len(series) > _MOST:
        pages.append(f"<p>and {len(series) - _MOST} more series</p>")
    if found["skipped"]:
        lines = "".join(f"<li>{escape(str(reason))}</li>" for reason in found["skipped"].values())
        pages.append(f"<h2>Left out: {len(found['skipped'])} files</h2><ul>{lines}</ul>")
    title = f"{target.name}: {found['slices']} CT slice{'s' * (found['slices'] != 1)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(pages)}</body></html>\n"
    )


def _section(row: Mapping[str, Any], series: Series) -> str:
    middle = len(series.files) // 2
    slices = Series(series.key, "", (series.files[middle],), offset=series.offset).read()
    image = slices[len(slices) // 2].hu
    encoded = base64.b64encode(_png(image)).decode("ascii")
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
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value
    )
    heading = escape(str(row["description"] or row["key"]))
    return (
        f'<section><h2>{heading}</h2><img alt="The middle slice of {heading}" '
        f'src="data:image/png;base64,{encoded}"><table>{cells}</table></section>'
    )


def _png(hu: NDArray[np.float32]) -> bytes:
    from matplotlib.image import imsave

    centre, width = WINDOWS[region_of(hu)]
    low, high = centre - width / 2, centre + width / 2
    step = max(1, -(-max(hu.shape) // _SIDE))
    file = io.BytesIO()
    imsave(file, hu[::step, ::step], cmap="gray", vmin=low, vmax=high, format="png")
    return file.getvalue()
