"""What the page of a probe says first: three figures that decide, and what reads faster as a plot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ctinv.invariance.reporting.parts import Cell, Matrix
from ctinv.invariance.reporting.plots import Axis, Line, line_plot
from ctinv.invariance.reporting.story import Bar, Decision

from .findings import KEPT

if TYPE_CHECKING:
    from markupsafe import Markup

    from .findings import Probe
    from .hotelling import Detectability

__all__ = ["bars", "decisions", "grid_map", "plots"]

_PLACES = (("image", "In the image x"), ("layer", "In the layer"), ("output", "In f(x)"))
_PLOTS = 4  # contrasts that are drawn


def decisions(probe: Probe) -> list[Decision]:
    """Whether the layer tells the lesion, whether the image does, and how much of it is left."""
    finding, level = probe.finding, probe.level
    there = finding.image.value >= level
    seen = finding.layer.value >= level
    grade = ("good" if seen else "bad") if there or seen else ""
    kept = finding.efficiency
    left = "not known" if not math.isfinite(kept) else f"{100 * kept:.0f} %"
    return [
        Decision(
            "Can the layer tell it?", f"d' {_short(finding.layer)}", _range(finding.layer, level), grade
        ),
        Decision(
            "Can the image tell it?",
            f"d' {_short(finding.image)}",
            _range(finding.image, level) if there else f"{_range(finding.image, level)} It is lost in noise.",
        ),
        Decision(
            "How much of it is left?",
            left,
            "Share of what the image tells about the lesion that a linear observer finds in the layer, too.",
            "" if not (there and math.isfinite(kept)) else ("good" if kept >= KEPT else "bad"),
        ),
    ]


def _short(measured: Detectability) -> str:
    return f"{measured.value:.1f}" if math.isfinite(measured.value) else "∞"


def _range(measured: Detectability, level: float) -> str:
    if not math.isfinite(measured.value):
        return "Without noise: any change would be told."
    low, high = (measured.value + sign * 1.96 * measured.error for sign in (-1, 1))
    return f"{level:g} or more is visible; 95 %: {max(low, 0.0):.1f} to {high:.1f}."


def bars(probe: Probe) -> list[tuple[str, list[Bar]]]:
    """``d'`` on the way from the image through the layer to the output."""
    values = [(words, getattr(probe.finding, of)) for of, words in _PLACES]
    top = max([probe.level, *(m.value for _, m in values if math.isfinite(m.value))])
    shown = [Bar(words, round(100 * max(0.0, min(m.value, top)) / top, 1), _short(m)) for words, m in values]
    return [(f"Detectability d' ({probe.level:g} is visible)", shown)]


def plots(probe: Probe) -> list[tuple[str, Markup]]:
    """``d'`` over the size of the lesion, one plot for each contrast of the grid."""
    grid = probe.grid
    if grid is None or len(grid.sizes) < 2:
        return []
    maps = {of: probe.map(of) for of, _ in _PLACES}
    pictures = []
    for row, contrast in enumerate(grid.contrasts[:_PLOTS]):
        lines = [
            Line(words, list(zip(grid.sizes, (float(v) for v in maps[of][row]), strict=True)))
            for of, words in _PLACES[:2]
        ]
        lines.append(Line("visible", [(size, probe.level) for size in grid.sizes], dashed=True))
        drawn = line_plot(
            f"Detectability of a lesion of {contrast:+g} HU over its size, in the image and in the layer",
            lines,
            Axis("Diameter [mm]", ends=(grid.sizes[0], grid.sizes[-1])),
            Axis("d'"),
        )
        if drawn is not None:
            pictures.append((f"Lesions of {contrast:+g} HU", drawn))
    return pictures


def grid_map(probe: Probe) -> Matrix | None:
    """The detectability map: ``d'`` in the layer, and beside it in the image."""
    if probe.grid is None:
        return None
    layer, image = probe.map("layer"), probe.map("image")

    def cell(row: int, column: int) -> Cell:
        here, best = float(layer[row, column]), float(image[row, column])
        return Cell(f"{_number(here)} ({_number(best)})", here if math.isfinite(here) else None)

    return Matrix(
        f"d' in {probe.meta.layer}, and in brackets in the image x; {probe.level:g} or more is visible.",
        "contrast / diameter",
        [f"{size:g} mm" for size in probe.grid.sizes],
        [f"{contrast:+g} HU" for contrast in probe.grid.contrasts],
        [[cell(r, c) for c in range(len(probe.grid.sizes))] for r in range(len(probe.grid.contrasts))],
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else "∞"
