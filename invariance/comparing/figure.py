"""The figure of a comparison: maps, their differences, curves, and what one hides from another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ctinv.adapters._types import Image
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.infra.pages import number
from ctinv.invariance.reporting.sheet import (
    INK,
    QUIET,
    Sheet,
    bar_text,
    plain_logs,
    scale_bar,
    spacing_text,
    top_of,
)
from matplotlib.axes import Axes

from .record import Case, ComparisonResult, Place

__all__ = ["place_png"]

_COLUMNS = 5
_PAIRS = 6
_COLOURS = ("#1f4e79", "#b45309", "#047857", "#7c3aed", "#be123c", "#475569", "#0e7490", "#65a30d")


def place_png(comparison: ComparisonResult, place: Place) -> bytes:
    """Draw one slice of a comparison.

    First the slice and the maps of all layers on one scale; then the differences of the maps from the
    first one, and the invariance curves; then, where models were at hand, what each layer hides and
    another sees, the largest first.

    Arguments:
        comparison: The comparison.
        place: One of its slices.

    Returns:
        A PNG file.
    """
    labels = place.labels
    pairs = sorted(place.pairs, key=lambda pair: -pair.size)[:_PAIRS]
    above = -(-(len(labels) + 1) // _COLUMNS)
    between = max(1, -(-len(labels) // _COLUMNS))  # differences from the first, and the curves
    below = -(-len(pairs) // 2)
    columns = min(_COLUMNS, max(4, len(labels) + 1))
    sheet = Sheet(place.x.shape, columns=columns, rows=above + between + below, compact=True)
    ratio = "" if comparison.rho is None else f" at noise ratio {comparison.rho:g}"
    sheet.head(f"What {len(labels)} layer{'s' * (len(labels) > 1)} hide{ratio}", place.slice)
    _maps(sheet, place)
    differences = _differences(sheet, place, above)
    row, column = divmod(differences, _COLUMNS)
    _curves(sheet.plot(above + row, column, "spread against noise ratio"), comparison.cases, labels)
    for number_, pair in enumerate(pairs):
        row, column = above + between + number_ // 2, 2 * (number_ % 2)
        top = top_of([pair.map]) if pair.map.any() else 1.0
        title = f"hidden from {pair.hides}"
        caption = f"seen by {pair.sees}; white {number(top)} HU"
        sheet.spread(row, column, pair.map, top, title, caption)
        _diverging(sheet, row, column + 1, pair.changes[0], "one such change")
    window = choose_window(place.x)
    sheet.foot(f"Input: {window}. {bar_text(place.spacing, place.x.shape[1])} One colour scale for all maps.")
    return sheet.png()


def _maps(sheet: Sheet, place: Place) -> None:
    window, top = choose_window(place.x), top_of(list(place.maps))
    axes, _ = sheet.grey(0, 0, place.x, window, "x, input", spacing_text(place.spacing))
    scale_bar(axes, place.spacing)
    mapped = None
    for at, (label, image) in enumerate(zip(place.labels, place.maps, strict=True), start=1):
        caption = f"mean {np.mean(image):.1f} HU, largest {np.max(image):.0f} HU"
        _, mapped = sheet.spread(*divmod(at, _COLUMNS), image, top, label, caption)
    if mapped is not None:
        sheet.bar(0, mapped, "standard deviation [HU]", extend=bool(place.maps.max() > top))


def _differences(sheet: Sheet, place: Place, row: int) -> int:
    """The other maps less the first, on one scale; how many there are."""
    apart = place.maps[1:] - place.maps[0]
    for at, (label, image) in enumerate(zip(place.labels[1:], apart, strict=True)):
        down, column = divmod(at, _COLUMNS)
        _diverging(sheet, row + down, column, image, f"{label} − {place.labels[0]}", apart)
    return len(apart)


def _diverging(
    sheet: Sheet, row: int, column: int, image: Image, title: str, among: Image | None = None
) -> None:
    top = float(np.percentile(np.abs(image if among is None else among), 99.5)) or 1.0
    caption = f"blue −{number(top)} HU to red {number(top)} HU"
    sheet.panel(row, column, image, title, caption, cmap="RdBu_r", vmin=-top, vmax=top)


def _curves(axes: Axes, cases: Sequence[Case], labels: Sequence[str]) -> None:
    """The invariance curves of all rows, one colour each; of several runs the mean."""
    plain_logs(axes)
    axes.tick_params(labelsize=9, labelcolor=INK, length=3)
    axes.set_xlabel("noise ratio", fontsize=9, color=INK, labelpad=1)
    axes.set_ylabel("std [HU]", fontsize=9, color=INK, labelpad=1)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    drawn = False
    for label, colour in zip(labels, _COLOURS, strict=False):
        points: dict[float, list[float]] = {}
        for case in cases:
            for point in case.curve if case.row == label else ():
                points.setdefault(point.rho, []).append(point.value)
        known = sorted((rho, float(np.mean(v))) for rho, v in points.items() if np.mean(v) > 0)
        if known:
            drawn = True
            axes.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=3, lw=1.5, label=label)
    if drawn:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="best")
    else:
        axes.text(0.5, 0.5, "no curves", transform=axes.transAxes, ha="center", color=QUIET)
