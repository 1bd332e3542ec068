"""A sheet of image panels with exact places, and what all figures write beside their images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ctinv.invariance.data.windows import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "QUIET",
    "Sheet",
    "bar_text",
    "distance",
    "plain_logs",
    "scale_bar",
    "spacing_text",
    "top_of",
]

INK, QUIET = "#1a1d21", "#5a6270"

# All lengths are in pixels of a 100 dpi figure; slices are drawn at 200 dpi, so that a 512 x 512
# image keeps its own pixels while text and layout stay the same.
_PANEL, _GAP, _MARGIN = 256, 10, 18
_HEAD, _TITLE, _CAPTION, _FOOT = 46, 26, 24, 14
_BAR, _BAR_ROOM = 12, 100


class Sheet:
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
        plain: dict[str, Any] = {"color": INK, "fontsize": 10, "fontfamily": "DejaVu Sans", "va": "center"}
        # Text is taken as it is: a dollar in a file name starts no formula.
        self.figure.text(x / self._width, 1 - y / self._height, text, parse_math=False, **(plain | style))

    def head(self, left: str, right: str) -> None:
        """Title and subtitle of the sheet."""
        self._text(_MARGIN, 20, _short(left, 100), fontsize=13, fontweight="bold")
        self._text(_MARGIN, 38, _short(right, 150), fontsize=10, color=QUIET)

    def foot(self, text: str) -> None:
        """One line below all panels."""
        self._text(_MARGIN, self._height - _MARGIN - 4, text, color=QUIET)

    def panel(self, row: int, column: int, image: Any, title: str, caption: str, **style: Any) -> Any:
        """An image (H, W) with title and caption, in the style of ``imshow``; gives axes and image."""
        left = _MARGIN + column * (_PANEL + _GAP)
        top = _HEAD + row * self._row + _TITLE
        axes = self._axes(left, top, *self._panel)
        axes.set_axis_off()
        self._text(left, top - 10, _short(title, 34), fontsize=10.5)
        self._text(left, top + self._panel[1] + 11, caption, fontsize=9.5, color=QUIET)
        return axes, axes.imshow(image, aspect="auto", interpolation="antialiased", **style)

    def grey(self, row: int, column: int, image: Any, window: Window, title: str, caption: str) -> Any:
        """A panel in a grey window, HU."""
        low, high = window.limits
        return self.panel(row, column, image, title, caption, cmap="gray", vmin=low, vmax=high)

    def spread(self, row: int, column: int, image: Any, top: float, title: str, caption: str) -> Any:
        """A panel of a map from 0 to ``top``, HU."""
        return self.panel(row, column, image, title, caption, cmap="inferno", vmin=0, vmax=top)

    def note(self, row: int, column: int, title: str, text: str, size: float = 12) -> None:
        """A panel that says something instead of showing it."""
        blank = np.zeros((1, 1))
        axes, _ = self.panel(row, column, blank, title, "", cmap="gray_r", vmin=0, vmax=20)
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0, 0, text, ha="center", va="center", fontsize=size, color=QUIET, parse_math=False)

    def plot(self, row: int, column: int, title: str) -> Axes:
        """Axes for a curve in the place of a panel, with room for their numbers."""
        left = _MARGIN + column * (_PANEL + _GAP)
        top = _HEAD + row * self._row + _TITLE
        self._text(left, top - 10, title, fontsize=10.5)
        return self._axes(left + 46, top + 4, self._panel[0] - 50, max(40, self._panel[1] - 38))

    def bar(self, row: int, mapped: Any, label: str, extend: bool) -> None:
        """The colour bar to the right of a row."""
        left = self._width - _MARGIN - _BAR_ROOM + 14
        top = _HEAD + row * self._row + _TITLE
        axes = self._axes(left, top, _BAR, self._panel[1])
        both = "max" if mapped.get_cmap().name == "inferno" else "both"  # spreads end at 0
        bar = self.figure.colorbar(mapped, cax=axes, extend=both if extend else "neither", extendfrac=0.03)
        bar.set_label(label, fontsize=9.5, color=INK, fontfamily="DejaVu Sans")
        bar.ax.tick_params(labelsize=9.5, labelcolor=INK, length=3)
        bar.outline.set_linewidth(0.5)

    def png(self) -> bytes:
        """The sheet as a PNG file; packing it tighter takes twice as long and saves 6 %."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        buffer = io.BytesIO()
        FigureCanvasAgg(self.figure).print_png(buffer, pil_kwargs={"compress_level": 3})
        return buffer.getvalue()


def plain_logs(axes: Axes) -> None:
    """Logarithmic scales with numbers as one says them: powers of ten have no room beside a small plot."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
        axis.set_tick_params(which="minor", labelsize=9)


def _short(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room // 2 - 1]}…{text[-(room // 2) :]}"


def top_of(maps: Sequence[npt.NDArray[np.float32]]) -> float:
    """The end of the colour scale: 99.5 % of all pixels lie below it."""
    return float(np.percentile(np.concatenate([m.ravel() for m in maps]), 99.5)) or 1.0


def _column_spacing(spacing: Any) -> float | None:
    if not isinstance(spacing, Sequence) or isinstance(spacing, str) or len(spacing) < 2:
        return None
    return float(spacing[1]) if spacing[1] else None


def _bar_length(mm: float, columns: int) -> int:
    """The longest round length that fits into a third of the image, in mm."""
    fitting = [b for b in (1, 2, 5, 10, 20, 50, 100, 200) if b <= mm * columns / 3]
    return fitting[-1] if fitting else 0


def bar_text(spacing: Any, columns: int) -> str:
    """What the scale bar measures; empty where there is none."""
    mm = _column_spacing(spacing)
    length = _bar_length(mm, columns) if mm else 0
    return f"Scale bar: {length} mm." if length else ""


def scale_bar(axes: Axes, spacing: Any) -> None:
    """Draw a bar of a round length in mm, where the spacing is known."""
    mm = _column_spacing(spacing)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length = _bar_length(mm, round(right - left)) if mm else 0
    if mm and length:
        x, y = left + 0.05 * (right - left), bottom + 0.06 * (top - bottom)
        for width, colour in ((4.0, "black"), (2.0, "white")):
            axes.plot([x, x + length / mm], [y, y], color=colour, linewidth=width, solid_capstyle="butt")
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)


def spacing_text(spacing: Any) -> str:
    """The size of a pixel."""
    mm = _column_spacing(spacing)
    return f"{mm:.3g} mm pixels" if mm else "pixel size not known"


def distance(image: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> str:
    """How far an image lies from the input."""
    error = np.sqrt(np.mean(np.square(image.astype(np.float64) - x)))
    return f"{error:.1f} HU RMS from x"
