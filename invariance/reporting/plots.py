"""Small plots that stand in a page as SVG, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctinv.invariance.infra.pages import number

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Axis", "Line", "line_plot"]

_WIDTH, _HEIGHT = 420, 264
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 46


@dataclass(frozen=True)
class Axis:
    """One axis of a plot.

    Arguments:
        title: What it shows, with its unit.
        log: Whether it is logarithmic; values of 0 and below are left out.
        ends: Its two ends; None for those of the values.
    """

    title: str
    log: bool = False
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Arguments:
        name: What the legend calls it.
        points: Its points (x, y) from left to right.
        dashed: For what the other lines are held against.
    """

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def line_plot(title: str, lines: Sequence[Line], x: Axis, y: Axis) -> Markup | None:
    """Draw lines; None where no point can be shown.

    Arguments:
        title: One sentence on what the plot shows; screen readers say it.
        lines: The first solid one has the page's own colour, further ones others.
        x: The axis to the right.
        y: The axis upwards.
    """
    from markupsafe import Markup, escape

    kept = [Line(one.name, [p for p in one.points if _shown(p, x, y)], one.dashed) for one in lines]
    kept = [one for one in kept if one.points]
    if not any(not one.dashed for one in kept):
        return None
    places = [p for one in kept for p in one.points]
    across = _scale(x, [p[0] for p in places], _LEFT, _WIDTH - _RIGHT)
    up = _scale(y, [p[1] for p in places], _HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y, across, up)]
    colour = 0
    for one in kept:
        style = "dashed" if one.dashed else f"line{colour}"
        colour += not one.dashed
        drawn = " ".join(f"{across.at(a):.1f},{up.at(b):.1f}" for a, b in one.points)
        parts.append(f'<polyline class="{style}" points="{drawn}"/>')
        if len(one.points) <= 24 and not one.dashed:
            parts += [
                f'<circle class="{style}" cx="{across.at(a):.1f}" cy="{up.at(b):.1f}" r="3"/>'
                for a, b in one.points
            ]
    legend = "".join(
        f'<li><i class="{"dashed" if one.dashed else f"line{n}"}"></i>{escape(one.name)}</li>'
        for n, one in _numbered(kept)
    )
    return Markup(
        f'<div class="plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg><ul class="legend">{legend}</ul></div>'
    )


def _numbered(lines: Sequence[Line]) -> Iterator[tuple[int, Line]]:
    colour = 0
    for one in lines:
        yield colour, one
        colour += not one.dashed


def _shown(point: tuple[float, float], x: Axis, y: Axis) -> bool:
    return all(math.isfinite(v) and (v > 0 or not axis.log) for v, axis in zip(point, (x, y), strict=True))


@dataclass(frozen=True)
class _Scale:
    """From values to places; its ticks."""

    at: Callable[[float], float]
    ticks: Sequence[float]


def _scale(axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = axis.ends or (min(values), max(values))
    if axis.log:
        low, high = (low / 1.5, high * 1.5) if axis.ends is None else (low, high)
        whole = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low < 100 else (1,)
        marks = [s * 10.0**power for power in whole for s in steps]
        span = math.log(high / low)
        return _Scale(
            lambda v: start + (end - start) * math.log(v / low) / span, [m for m in marks if low <= m <= high]
        )
    if low == high:
        low, high = low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    if axis.ends is None:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    marks = [float(f"{n * step:.12g}") for n in range(first, last + 1)]
    return _Scale(lambda v: start + (end - start) * (v - low) / (high - low), marks)


def _grid(x: Axis, y: Axis, across: _Scale, up: _Scale) -> Iterator[str]:
    from markupsafe import escape

    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for tick in across.ticks:
        at = f"{across.at(tick):.1f}"
        yield f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>'
        yield f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{_tick(tick)}</text>'
    for tick in up.ticks:
        place = up.at(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{_tick(tick)}</text>'
    middle = (_LEFT + right) / 2
    yield f'<text class="axis" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>'
    place = (_TOP + bottom) / 2
    yield (
        f'<text class="axis" transform="translate(13 {place}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−") if 1e-4 <= abs(value) < 1e6 or value == 0 else number(value)
