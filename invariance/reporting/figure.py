"""The figure of an analysis: input, reconstruction, output, invariances and their spread."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ctinv.invariance.data.windows import Window, choose_window
from ctinv.invariance.infra.pages import number

if TYPE_CHECKING:
    from ctinv.invariance.audit.record import Audit
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .result import AnalysisResult

__all__ = ["draw_curve", "figure_png", "layers_png"]

# All lengths are in pixels of a 100 dpi figure; slices are drawn at 200 dpi, so that a 512 x 512
# image keeps its own pixels while text and layout stay the same.
_PANEL, _GAP, _MARGIN = 256, 10, 18
_HEAD, _TITLE, _CAPTION, _FOOT = 46, 26, 24, 14
_BAR, _BAR_ROOM = 12, 100
_COLUMNS = 5
_INK, _QUIET, _LINE = "#1a1d21", "#5a6270", "#1f4e79"
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
    sheet = _Sheet(e.x.shape, columns=_COLUMNS, rows=rows, compact=compact)
    sheet.head(_heading(e), _place(e))
    grey = [
        ("x, input", e.x, _spacing_text(e.meta.spacing)),
        ("D(E(x)), reconstruction", e.reconstruction, _distance(e.reconstruction, e.x)),
        ("f(x), denoised", e.denoised, _distance(e.denoised, e.x)),
    ]
    if not refined:
        grey.append((f"mean of {count} samples", e.mean, _distance(e.mean, e.x)))
    for column, (title, image, caption) in enumerate(grey):
        axes, mapped = sheet.grey(0, column, image, window, title, caption)
        if column == 0:
            _scale_bar(axes, e.meta.spacing)
    if e.std_flow is not None:
        top = _top([e.std_flow])
        caption = f"mean {np.mean(e.std_flow):.1f} HU, white: {top:.0f} HU"
        sheet.spread(0, 3, e.std_flow, top, f"std of {count}, not refined", caption)
    _map(sheet, e, f"std of {used}, refined" if refined else f"std of {count} samples")
    mark = "″" if refined else "′"
    for column, image in enumerate(shown):
        title = f"x{mark}{column + 1}".translate(_SUBSCRIPTS) + f", sample {column + 1} of {used}"
        sheet.grey(1, column, image, window, title, _distance(image, e.x))
    if len(shown):
        sheet.bar(1, mapped, "CT number [HU]", extend=True)
    if len(shown) and refined:
        _differences(sheet, e, shown[: _COLUMNS - 1])
        draw_curve(sheet.plot(2, _COLUMNS - 1, "spread against noise ratio"), e.audit)
    if e.reading is not None:
        _bounds(sheet, below, e, e.reading, window)
    dashed = " Dashed: what a layer that forgets nothing would show." if len(shown) and refined else ""
    sheet.foot(f"Grey images: {window}. {_bar_text(e.meta.get('spacing'), e.x.shape[1])}{dashed}")
    return sheet.png()


def _map(sheet: _Sheet, e: AnalysisResult, title: str) -> None:
    """The map in the last column, or the word that there is none."""
    if not e.found:
        sheet.note(0, 4, title, f"nothing found\n\nlargest {np.max(e.std):.1f} HU")
        return
    top = _top([e.std])
    caption = f"mean {np.mean(e.std):.1f} HU, largest {np.max(e.std):.0f} HU"
    _, spread = sheet.spread(0, 4, e.std, top, title, caption)
    sheet.bar(0, spread, "standard deviation [HU]", extend=bool(np.max(e.std) > top))


def _bounds(
    sheet: _Sheet, row: int, e: AnalysisResult, reading: npt.NDArray[np.float32], window: Window
) -> None:
    """What the layer still knows, from above, and the noise that it hides, from below."""
    sheet.grey(row, 0, reading, window, "x_R, read back from the layer", _distance(reading, e.x))
    error = reading - e.x
    top = float(np.percentile(np.abs(error), 99)) or 1.0
    caption = f"blue −{number(top)} HU to red {number(top)} HU"
    style = {"cmap": "RdBu_r", "vmin": -top, "vmax": top}
    sheet.panel(row, 1, error, "x_R − x: no map may be wider", caption, **style)
    if e.std_noise is not None:
        top = _top([e.std_noise])
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


def _differences(sheet: _Sheet, e: AnalysisResult, shown: npt.NDArray[np.float32]) -> None:
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
    window, top = choose_window(x), _top([e.std for e in explanations])
    rows = -(-(len(explanations) + 1) // _COLUMNS)
    sheet = _Sheet(x.shape, columns=min(_COLUMNS, len(explanations) + 1), rows=rows, compact=True)
    sheet.head("Where each layer is blind: standard deviation of the samples", _place(explanations[0]))
    axes, _ = sheet.grey(0, 0, x, window, "x, input", _spacing_text(meta.spacing))
    _scale_bar(axes, meta.spacing)
    for place, e in enumerate(explanations, start=1):
        row, column = divmod(place, _COLUMNS)
        caption = f"mean {np.mean(e.std):.1f} HU, largest {np.max(e.std):.0f} HU"
        _, mapped = sheet.spread(row, column, e.std, top, _layer_text(e), caption)
    sheet.bar(0, mapped, "standard deviation [HU]", extend=any(np.max(e.std) > top for e in explanations))
    sheet.foot(f"Input: {window}. One colour scale for all maps.")
    return sheet.png()


class _Sheet:
    """A grid of image panels with exact pixel positions: nothing overlaps, nothing is cut off."""

    def __init__(self, shape: Sequence[int], columns: int, rows: int, compact: bool) -> None:
        from matplotlib.figure import Figure

        height, width = shape
        self._panel = (_PANEL, max(48, round(_PANEL * height / width)))
        self._row = _TITLE + self._panel[1] + _CAPTION
        self._width = 2 * _MARGIN + columns * _PANEL + (columns - 1) * _GAP + _BAR_ROOM
        self._height = _HEAD + rows * self._row + _FOOT + _MARGIN
        self._dpi = 200 if max(shape) > _PANEL and not compact else 100
        size = (self._width / 100, self._height / 100)
        self.figure: Figure = Figure(figsize=size, dpi=self._dpi, facecolor="white")

    def _axes(self, left: float, top: float, width: float, height: float) -> Axes:
        w, h = self._width, self._height
        return self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))

    def _text(self, x: float, y: float, text: str, **style: Any) -> None:
        plain: dict[str, Any] = {"color": _INK, "fontsize": 10, "fontfamily": "DejaVu Sans", "va": "center"}
        # Text is taken as it is: a dollar in a file name starts no formula.
        self.figure.text(x / self._width, 1 - y / self._height, text, parse_math=False, **(plain | style))

    def head(self, left: str, right: str) -> None:
        self._text(_MARGIN, 20, _short(left, 100), fontsize=13, fontweight="bold")
        self._text(_MARGIN, 38, _short(right, 150), fontsize=10, color=_QUIET)

    def foot(self, text: str) -> None:
        self._text(_MARGIN, self._height - _MARGIN - 4, text, color=_QUIET)

    def panel(self, row: int, column: int, image: Any, title: str, caption: str, **style: Any) -> Any:
        left = _MARGIN + column * (_PANEL + _GAP)
        top = _HEAD + row * self._row + _TITLE
        axes = self._axes(left, top, *self._panel)
        axes.set_axis_off()
        self._text(left, top - 10, _short(title, 34), fontsize=10.5)
        self._text(left, top + self._panel[1] + 11, caption, fontsize=9.5, color=_QUIET)
        return axes, axes.imshow(image, aspect="auto", interpolation="antialiased", **style)

    def grey(self, row: int, column: int, image: Any, window: Window, title: str, caption: str) -> Any:
        low, high = window.limits
        return self.panel(row, column, image, title, caption, cmap="gray", vmin=low, vmax=high)

    def spread(self, row: int, column: int, image: Any, top: float, title: str, caption: str) -> Any:
        return self.panel(row, column, image, title, caption, cmap="inferno", vmin=0, vmax=top)

    def note(self, row: int, column: int, title: str, text: str, size: float = 12) -> None:
        """A panel that says something instead of showing it."""
        blank = np.zeros((1, 1))
        axes, _ = self.panel(row, column, blank, title, "", cmap="gray_r", vmin=0, vmax=20)
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0, 0, text, ha="center", va="center", fontsize=size, color=_QUIET, parse_math=False)

    def plot(self, row: int, column: int, title: str) -> Axes:
        """Axes for a curve in the place of a panel, with room for their numbers."""
        left = _MARGIN + column * (_PANEL + _GAP)
        top = _HEAD + row * self._row + _TITLE
        self._text(left, top - 10, title, fontsize=10.5)
        return self._axes(left + 46, top + 4, self._panel[0] - 50, max(40, self._panel[1] - 38))

    def bar(self, row: int, mapped: Any, label: str, extend: bool) -> None:
        left = self._width - _MARGIN - _BAR_ROOM + 14
        top = _HEAD + row * self._row + _TITLE
        axes = self._axes(left, top, _BAR, self._panel[1])
        both = "both" if mapped.get_cmap().name == "gray" else "max"
        bar = self.figure.colorbar(mapped, cax=axes, extend=both if extend else "neither", extendfrac=0.03)
        bar.set_label(label, fontsize=9.5, color=_INK, fontfamily="DejaVu Sans")
        bar.ax.tick_params(labelsize=9.5, labelcolor=_INK, length=3)
        bar.outline.set_linewidth(0.5)

    def png(self) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        buffer = io.BytesIO()
        FigureCanvasAgg(self.figure).print_png(buffer)
        return buffer.getvalue()


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


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room // 2 - 1]}…{text[-(room // 2) :]}"


def _distance(image: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> str:
    error = np.sqrt(np.mean(np.square(image.astype(np.float64) - x)))
    return f"{error:.1f} HU RMS from x"


def _top(maps: Sequence[npt.NDArray[np.float32]]) -> float:
    """The end of the colour scale: 99.5 % of all pixels lie below it."""
    return float(np.percentile(np.concatenate([m.ravel() for m in maps]), 99.5)) or 1.0


def _column_spacing(spacing: Any) -> float | None:
    if not isinstance(spacing, Sequence) or isinstance(spacing, str) or len(spacing) < 2:
        return None
    return float(spacing[1]) if spacing[1] else None


def _spacing_text(spacing: Any) -> str:
    mm = _column_spacing(spacing)
    return f"{mm:.3g} mm pixels" if mm else "pixel size not known"


def _bar_length(mm: float, columns: int) -> int:
    """The longest round length that fits into a third of the image, in mm."""
    fitting = [b for b in (1, 2, 5, 10, 20, 50, 100, 200) if b <= mm * columns / 3]
    return fitting[-1] if fitting else 0


def _bar_text(spacing: Any, columns: int) -> str:
    mm = _column_spacing(spacing)
    length = _bar_length(mm, columns) if mm else 0
    return f"Scale bar: {length} mm." if length else ""


def _scale_bar(axes: Axes, spacing: Any) -> None:
    mm = _column_spacing(spacing)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length = _bar_length(mm, round(right - left)) if mm else 0
    if mm and length:
        x, y = left + 0.05 * (right - left), bottom + 0.06 * (top - bottom)
        for width, colour in ((4.0, "black"), (2.0, "white")):
            axes.plot([x, x + length / mm], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)


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
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.tick_params(labelsize=9, labelcolor=_INK, length=3)
    axes.set_xlabel("noise ratio", fontsize=9, color=_INK, labelpad=1)
    axes.set_ylabel("std [HU]", fontsize=9, color=_INK, labelpad=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not points:
        axes.text(0.5, 0.5, "blind to everything", transform=axes.transAxes, ha="center", color=_QUIET)
        return
    ratios, spreads = zip(*points, strict=True)
    axes.plot(ratios, spreads, color=_LINE, marker="o", markersize=3.5, linewidth=1.5)
    if noise and noise.value:
        axes.plot(
            ratios, [r * noise.value for r in ratios], color=_QUIET, linewidth=1, linestyle="--", zorder=0
        )
    if shown and shown.rho:
        axes.axvline(shown.rho, color=_QUIET, linewidth=0.6, zorder=0)
