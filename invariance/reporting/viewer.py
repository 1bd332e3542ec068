"""What the viewer of a report shows: images, windows, colours and places."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.adapters._types import Image
from ctinv.invariance.data.windows import PRESETS, choose_window

from .packing import BUDGET, Picture, pack

if TYPE_CHECKING:
    from .result import AnalysisResult

__all__ = ["SCRIPTS", "pictures", "shown_data", "viewer_data"]

SCRIPTS = (
    "dom.js",
    "save.js",
    "pictures.js",
    "colours.js",
    "view.js",
    "pane.js",
    "layout.js",
    "pointer.js",
    "keys.js",
    "savepanes.js",
    "controls.js",
    "viewer.js",
)
"""What the viewer runs on, see the macro ``viewer`` of ``templates/viewer.html.j2``."""

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def pictures(e: AnalysisResult) -> Iterator[Picture]:
    """The images of an explanation in the order in which they are read."""
    refined = e.std_flow is not None
    yield Picture("x", "x, the image", "ct", e.x)
    yield Picture("reconstruction", "D(E(x)), reconstruction", "ct", e.reconstruction)
    if e.reading is not None:
        yield Picture("reading", "x_R, read back from the layer", "ct", e.reading)
    yield Picture("denoised", "f(x), denoised", "ct", e.denoised)
    for number, image in enumerate(e.samples, start=1):
        mark = f"x{'″' if refined else '′'}{number}".translate(_SUBSCRIPTS)
        yield Picture(f"sample{number}", f"{mark}, sample {number}", "ct", image, number)
    nothing = "" if e.found else " (nothing found)"
    yield Picture(
        "std", ("Map: hidden anatomy" if refined else "Map: spread of the samples") + nothing, "map", e.std
    )
    if e.std_noise is not None:
        yield Picture("std_noise", "Map: hidden noise", "map", e.std_noise)
    if e.std_flow is not None:
        yield Picture("std_flow", "Map before refinement (not hidden)", "map", e.std_flow)


def viewer_data(e: AnalysisResult, more: Sequence[Picture] = (), budget: int = BUDGET) -> dict[str, Any]:
    """All that the viewer's scripts read, as plain JSON values.

    Arguments:
        e: What to show.
        more: Images of further questions, shown behind its own.
        budget: Characters that the images may take, see :func:`ctinv.invariance.reporting.packing.pack`.
    """
    return shown_data(
        [*pictures(e), *more],
        spacing=e.meta.spacing,
        name=f"ctinv-{e.meta.layer or 'layer'}",
        top=_end([e.std] if e.std_noise is None else [e.std, e.std_noise]),
        difference=_end([np.abs(image - e.x) for image in e.samples] or [np.abs(e.denoised - e.x)]),
        budget=budget,
    )


def shown_data(
    shown: Sequence[Picture],
    *,
    spacing: Sequence[float] | None,
    name: str,
    difference: float,
    top: float = 1.0,
    window: tuple[float, float] | None = None,
    chosen: Sequence[str] | None = None,
    focus: tuple[float, float, float] | None = None,
    budget: int = BUDGET,
) -> dict[str, Any]:
    """What the viewer reads of any images of one slice, as plain JSON values.

    Arguments:
        shown: The images; the first, ``x``, is what others are held against.
        spacing: Row and column spacing in mm, where known.
        name: What files that it saves are called.
        difference: End of the scale of differences, HU.
        top: End of the scale of maps, HU.
        window: Grey window at first, from and to, HU; one that suits the first image where None.
        chosen: Keys of the three images that stand side by side at first; those of an analysis where None.
        focus: Column, row and zoom at first; the whole slice where None.
        budget: Characters that the images may take.
    """
    packed = pack(shown, budget)
    scale, x = packed.shrink, shown[0].pixels
    height, width = (size // scale for size in x.shape)
    return {
        "shape": [height, width],
        "spacing": [float(mm) * scale for mm in spacing] if spacing and all(spacing) else None,
        "images": list(packed.images),
        "window": list(window or choose_window(x).limits),
        "presets": [{"name": name, "limits": list(w.limits)} for name, w in PRESETS.items()],
        "top": top,
        "difference": difference,
        "chosen": None if chosen is None else list(chosen),
        "focus": None
        if focus is None
        else {"column": focus[0] / scale, "row": focus[1] / scale, "zoom": focus[2]},
        "colours": {"map": _colours("inferno"), "difference": _colours("RdBu_r")},
        "said": _said(packed.step, packed.left_out, scale),
        "name": name,
    }


def _end(images: Sequence[Image]) -> float:
    """The end of a colour scale: 99.5 % of all pixels lie below it."""
    return round(float(np.percentile(np.concatenate([i.ravel() for i in images]), 99.5)), 2) or 1.0


def _colours(name: str) -> str:
    """256 colours as base64 of their red, green and blue bytes."""
    from matplotlib import colormaps

    table = np.asarray(colormaps[name](np.arange(256), bytes=True))[:, :3]
    return base64.b64encode(table.tobytes()).decode("ascii")


def _said(step: float, left_out: int, shrink: int) -> str:
    """What the reader must know about the values on the page."""
    parts = [f"Values are exact to {step / 2:g} HU"]
    if shrink > 1:
        parts.append(f"{shrink} × {shrink} pixels are averaged to one")
    if left_out:
        parts.append(f"{left_out} further samples are in arrays.npz only")
    return "; ".join(parts) + "."
