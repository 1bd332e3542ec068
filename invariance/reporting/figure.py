"""The figure of an analysis: input, reconstruction, output, invariances and their spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ctinv.invariance.data.windows import Window, choose_window
from ctinv.invariance.infra.pages import number

from .sheet import INK, QUIET, Sheet, bar_text, distance, plain_logs, scale_bar, spacing_text, top_of

if TYPE_CHECKING:
    from ctinv.invariance.audit.record import Audit
    from matplotlib.axes import Axes

    from .result import AnalysisResult

__all__ = ["draw_curve", "figure_png", "layers_png"]

_COLUMNS = 5
_LINE = "#1f4e79"
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def figure_png(explanation: AnalysisResult, *, compact: bool = False) -> bytes:
    """Draw one explanation: what goes in and comes out, the maps, and images the layer cannot tell apart.

    First row: ``x``, ``D(E(x))``, ``f(x)``, then the mean and the standard deviation of all samples,
    or, where samples are refined, the map before and after. Second row: up to five samples. Third
    row, where they are refined: their differences from ``x`` and the invariance curve. Last row, where
    the image can be read back from the layer: what was read, how far it is off, and the noise that is
    hidden. Grey images share one HU window, which the figure states. Where nothing was found, no map is
    shown.

    Arguments:
        explanation: What to draw.
        compact: Whether slices, too, are drawn small; otherwise they keep their own pixels.

    Returns:
        A PNG file.
    """
    e = explanation
    refined = e.std_flow is not None
    window, count = choose_window(e.x), e.meta.samples or len(e.samples)
    used = e.meta.refinement.samples or count
    shown = e.samples[:_COLUMNS]
    below = 1 + bool(len(shown)) * (1 + refined)
    rows = below + (e.reading is not None)
    sheet = Sheet(e.x.shape, columns=_COLUMNS, rows=rows, compact=compact)
    sheet.head(_heading(e), _place(e))
    grey = [
        ("x, input", e.x, spacing_text(e.meta.spacing)),
        ("D(E(x)), reconstruction", e.reconstruction, distance(e.reconstruction, e.x)),
        ("f(x), denoised", e.denoised, distance(e.denoised, e.x)),
    ]
    if not refined:
        grey.append((f"mean of {count} samples", e.mean, distance(e.mean, e.x)))
    for column, (title, image, caption) in enumerate(grey):
        axes, mapped = sheet.grey(0, column, image, window, title, caption)
        if column == 0:
            scale_bar(axes, e.meta.spacing)
    if e.std_flow is not None:
        top = top_of([e.std_flow])
        caption = f"mean {np.mean(e.std_flow):.1f} HU, white: {top:.0f} HU"
        sheet.spread(0, 3, e.std_flow, top, f"std of {count}, not refined", caption)
    _map(sheet, e, f"std of {used}, refined" if refined else f"std of {count} samples")
    mark = "″" if refined else "′"
    for column, image in enumerate(shown):
        title = f"x{mark}{column + 1}".translate(_SUBSCRIPTS) + f", sample {column + 1} of {used}"
        sheet.grey(1, column, image, window, title, distance(image, e.x))
    if len(shown):
        sheet.bar(1, mapped, "CT number [HU]", extend=True)
    if len(shown) and refined:
        _differences(sheet, e, shown[: _COLUMNS - 1])
        draw_curve(sheet.plot(2, _COLUMNS - 1, "spread against noise ratio"), e.audit)
    if e.reading is not None:
        _bounds(sheet, below, e, e.reading, window)
    dashed = " Dashed: what a layer that forgets nothing would show." if len(shown) and refined else ""
    sheet.foot(f"Grey images: {window}. {bar_text(e.meta.get('spacing'), e.x.shape[1])}{dashed}")
    return sheet.png()


def _map(sheet: Sheet, e: AnalysisResult, title: str) -> None:
    """The map in the last column, or the word that there is none."""
    if not e.found:
        sheet.note(0, 4, title, f"nothing found\n\nlargest {np.max(e.std):.1f} HU")
        return
    top = top_of([e.std])
    caption = f"mean {np.mean(e.std):.1f} HU, largest {np.max(e.std):.0f} HU"
    _, spread = sheet.spread(0, 4, e.std, top, title, caption)
    sheet.bar(0, spread, "standard deviation [HU]", extend=bool(np.max(e.std) > top))


def _bounds(
    sheet: Sheet, row: int, e: AnalysisResult, reading: npt.NDArray[np.float32], window: Window
) -> None:
    """What the layer still knows, from above, and the noise that it hides, from below."""
    sheet.grey(row, 0, reading, window, "x_R, read back from the layer", distance(reading, e.x))
    error = reading - e.x
    top = float(np.percentile(np.abs(error), 99)) or 1.0
    caption = f"blue −{number(top)} HU to red {number(top)} HU"
    style = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    sheet.panel(row, 1, error, "x_R − x: no map may be wider", caption, **style)
    if e.std_noise is not None:
        top = top_of([e.std_noise])
        caption = f"mean {np.mean(e.std_noise):.1f} HU, white: {top:.1f} HU"
        sheet.spread(row, 2, e.std_noise, top, "noise hidden: std, refined", caption)
    facts = [
        (f"{name} {bound.value:.1f} HU")
        for name, bound in (
            ("anatomy hidden: at least", e.bounds.lower),
            ("noise hidden: at least", e.bounds.noise),
            ("held-out slices: at most", e.bounds.upper),
            ("this image: at most", e.bounds.upper_here),
        )
        if bound is not None
    ]
    if facts:
        sheet.note(row, 3, "the bracket (RMS in the body)", "\n\n".join(facts), 9.5)


def _differences(sheet: Sheet, e: AnalysisResult, shown: npt.NDArray[np.float32]) -> None:
    changes = shown - e.x
    top = float(np.percentile(np.abs(changes), 99.5)) or 1.0
    for column, change in enumerate(changes):
        title = f"x″{column + 1}".translate(_SUBSCRIPTS) + " − x"
        style = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
        caption = f"blue −{number(top)} HU to red {number(top)} HU"
        sheet.panel(2, column, change, title, caption, **style)


def layers_png(explanations: Sequence[AnalysisResult]) -> bytes:
    """Draw the standard deviation maps of several layers of one image beside each other.

    All maps share one colour scale, so that they can be compared; the first panel is the image.

    Arguments:
        explanations: At least one; all of the same image.

    Returns:
        A PNG file.
    """
    x, meta = explanations[0].x, explanations[0].meta
    window, top = choose_window(x), top_of([e.std for e in explanations])
    rows = -(-(len(explanations) + 1) // _COLUMNS)
    sheet = Sheet(x.shape, columns=min(_COLUMNS, len(explanations) + 1), rows=rows, compact=True)
    sheet.head("Where each layer is blind: standard deviation of the samples", _place(explanations[0]))
    axes, _ = sheet.grey(0, 0, x, window, "x, input", spacing_text(meta.spacing))
    scale_bar(axes, meta.spacing)
    for place, e in enumerate(explanations, start=1):
        row, column = divmod(place, _COLUMNS)
        caption = f"mean {np.mean(e.std):.1f} HU, largest {np.max(e.std):.0f} HU"
        _, mapped = sheet.spread(row, column, e.std, top, _layer_text(e), caption)
    sheet.bar(0, mapped, "standard deviation [HU]", extend=any(np.max(e.std) > top for e in explanations))
    sheet.foot(f"Input: {window}. One colour scale for all maps.")
    return sheet.png()


def _heading(e: AnalysisResult) -> str:
    model = e.meta.model or "model"
    return f"Layer {_layer_text(e)} of {model}: what it cannot tell apart"


def _layer_text(e: AnalysisResult) -> str:
    op = e.meta.op
    return f"{e.meta.get('layer') or 'unnamed'}" + (f" ({op})" if op else "")


def _place(e: AnalysisResult) -> str:
    parts = [PurePath(str(e.meta.source or "")).name, f"{e.x.shape[0]} × {e.x.shape[1]} pixels"]
    if e.meta.preset:
        parts.append(f"preset {e.meta.preset}")
    if e.meta.seed is not None:
        parts.append(f"seed {e.meta.seed}")
    return "   ".join(part for part in parts if part)


def draw_curve(axes: Axes, audit: Audit) -> None:
    """Draw spread against noise ratio, both logarithmic.

    The dashed line is what a layer that forgets nothing would show: spread = ratio x noise. How far
    the curve lies above it is what the layer hides.

    Arguments:
        axes: Where to draw.
        audit: With the groups ``curve`` and ``map``.
    """
    points = sorted(
        (point.reached, point.value) for point in audit.curve.values() if point.reached and point.value
    )
    noise, shown = audit.map.noise, audit.map.std
    plain_logs(axes)
    axes.tick_params(labelsize=9, labelcolor=INK, length=3)
    axes.set_xlabel("noise ratio", fontsize=9, color=INK, labelpad=1)
    axes.set_ylabel("std [HU]", fontsize=9, color=INK, labelpad=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not points:
        axes.text(0.5, 0.5, "blind to everything", transform=axes.transAxes, ha="center", color=QUIET)
        return
    ratios, spreads = zip(*points, strict=True)
    axes.plot(ratios, spreads, color=_LINE, marker="o", markersize=3.5, linewidth=1.5)
    if noise and noise.value:
        axes.plot(
            ratios, [r * noise.value for r in ratios], color=QUIET, linewidth=1, linestyle="--", zorder=0
        )
    if shown and shown.rho:
        axes.axvline(shown.rho, color=QUIET, linewidth=0.6, zorder=0)
