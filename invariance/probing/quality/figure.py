"""One figure of the bench: transfers, noise power spectra and bias of f(x), for all denoisers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctinv.invariance.infra.palette import COLOURS, INK, PLAIN, QUIET

from .bench import BenchRow
from .sheet import Curve, Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bench_png"]

_STYLES = ("-", "--", ":", "-.")


def bench_png(sheets: Sequence[Sheet]) -> bytes:
    """Draw what the bench found.

    Above: the transfer of f(x), one panel for each dose, the contrasts in different strokes, that of x in
    grey. Middle: radial noise power spectra on uniform tissue and in a made-up abdomen, and the bias by
    tissue. Below: the two-dimensional spectra on uniform tissue.

    Arguments:
        sheets: One for each denoiser, all with the same doses.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    doses = sheets[0].doses
    figure = Figure(figsize=(13, 10.6), dpi=100, facecolor="white", layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=(1, 1, 0.85))
    above, middle, below = parts
    for axes, dose in zip(above.subplots(1, len(doses), squeeze=False)[0], doses, strict=True):
        _transfers(axes, sheets, dose)
    panels: Any = middle.subplots(1, 3)
    for axes, place in zip(panels[:2], ("uniform", "patient"), strict=True):
        _spectra(axes, sheets, place)
    _biases(panels[2], sheets)
    _planes(below, sheets)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _curves(sheet: Sheet, kind: str) -> list[Curve]:
    return [curve for curve in sheet.curves if curve.kind == kind]


def _transfers(axes: Axes, sheets: Sequence[Sheet], dose: float) -> None:
    for number, sheet in enumerate(sheets):
        mine = [c for c in _curves(sheet, "transfer") if c.name.endswith(f"dose {dose:g}")]
        for style, curve in zip(_STYLES * len(mine), mine, strict=False):
            contrast = curve.name.partition(",")[0]
            if number == 0:
                axes.plot(
                    curve.frequency,
                    curve.image,
                    style,
                    color=QUIET,
                    lw=0.9,
                    label="x" if curve is mine[0] else None,
                )
            label = f"{sheet.model}, {contrast}"
            axes.plot(curve.frequency, curve.output, style, color=_colour(number), lw=1.6, label=label)
    axes.set_ylim(0, 1.6)
    axes.set_xlabel("spatial frequency [1/mm]", fontsize=9, color=INK)
    axes.set_title(f"task transfer function, dose {dose:g}", fontsize=10, **PLAIN)
    axes.legend(fontsize=7.5, frameon=False, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def _spectra(axes: Axes, sheets: Sequence[Sheet], place: str) -> None:
    for number, sheet in enumerate(sheets):
        for curve in _curves(sheet, "noise"):
            if curve.name != place:
                continue
            if number == 0:
                axes.plot(curve.frequency, curve.image, color=INK, lw=1.2, label="x")
            axes.plot(curve.frequency, curve.output, color=_colour(number), lw=1.6, label=sheet.model)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("spatial frequency [1/mm]", fontsize=9, color=INK)
    axes.set_title(f"noise power [HU² mm²], {place}", fontsize=10, **PLAIN)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _biases(axes: Axes, sheets: Sequence[Sheet]) -> None:
    names: list[str] = []
    for sheet in sheets:
        names += [tissue for tissue in _bias_rows(sheet) if tissue not in names]
    width = 0.8 / len(sheets)
    for number, sheet in enumerate(sheets):
        rows = _bias_rows(sheet)
        at = [names.index(name) + (number - (len(sheets) - 1) / 2) * width for name in rows]
        errors = [1.96 * (row.error or 0.0) for row in rows.values()]
        values = [row.output for row in rows.values()]
        axes.bar(at, values, width, yerr=errors, color=_colour(number), label=sheet.model, ecolor=INK)
    axes.axhline(0.0, color=QUIET, lw=0.8)
    axes.set_xticks(range(len(names)), names, fontsize=8.5, rotation=25, ha="right")
    axes.set_title("bias of f(x) by tissue [HU], with 95 % intervals", fontsize=10, **PLAIN)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _bias_rows(sheet: Sheet) -> dict[str, BenchRow]:
    """Tissue to its row."""
    start = "bias, "
    return {row.figure.removeprefix(start): row for row in sheet.rows if row.figure.startswith(start)}


def _planes(parent: Any, sheets: Sequence[Sheet]) -> None:
    shown = [(sheets[0], "x, uniform", "x")] + [(s, "f(x), uniform", s.model) for s in sheets]
    panels = parent.subplots(1, len(shown), squeeze=False)[0]
    for axes, (sheet, name, title) in zip(panels, shown, strict=True):
        (plane,) = (p for p in sheet.planes if p.name == name)
        rows, columns = plane.limit
        axes.imshow(
            plane.values, cmap="magma", extent=(-columns, columns, rows, -rows), interpolation="nearest"
        )
        axes.set_title(f"noise power in two dimensions, {title}", fontsize=9.5, **PLAIN)
        axes.set_xlabel("1/mm", fontsize=8)
        axes.tick_params(labelsize=8)
