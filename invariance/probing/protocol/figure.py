"""One figure of a protocol: d' over dose, contrast and size, and what each layer keeps, for all denoisers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctinv.invariance.infra.palette import COLOURS, INK, PLAIN, QUIET
from ctinv.invariance.probing.tasks.task import Task

from .record import Outcome, Results
from .shares import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["protocol_png"]

_INNER = 3  # layers of a denoiser that are drawn as thin lines over dose


def protocol_png(results: Results) -> bytes:
    """Draw what a protocol found, by its first observer.

    Above: d' over dose, over contrast and over size, for x (black), f(x) (thick) and some layers
    (thin, dashed). Below: the efficiency of every layer, for detection and for characterisation.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.2), dpi=110, facecolor="white", layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = halves[0].subplots(1, 3)
    tasks = [t for t in results.protocol.tasks if t.detects and t.kind == "detect"]
    tasks = tasks or list(results.protocol.tasks[:1])
    most = _most_asked(tasks)
    _doses(axes[0], results, most)
    same_size = [t for t in tasks if t.size == most.size]
    same_contrast = [t for t in tasks if t.contrast == most.contrast]
    dose = results.protocol.doses[-1]
    _over(axes[1], results, same_size, "contrast", f"contrast [HU], {most.size:g} mm, dose {dose:g}")
    _over(axes[2], results, same_contrast, "size", f"diameter [mm], {most.contrast:+g} HU, dose {dose:g}")
    axes[0].set_ylabel("d'", fontsize=10, color=INK)
    panels = halves[1].subplots(1, max(1, len(results.layers)), sharey=True, squeeze=False)[0]
    for panel, model, colour in zip(panels, results.layers, _cycle(len(results.layers)), strict=False):
        _layers(panel, results, model, colour)
    panels[0].set_ylabel("efficiency: (d' here / d' in x)²", fontsize=10, color=INK)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _most_asked(tasks: Sequence[Task]) -> Task:
    """The task whose size and contrast most others share."""
    return max(tasks, key=lambda t: sum((o.size == t.size) + (o.contrast == t.contrast) for o in tasks))


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


def _series(results: Results, model: str) -> list[tuple[str, dict[str, Any]]]:
    """The places of one denoiser that are drawn, with their style."""
    places = results.layers[model]
    colour = _cycle(len(results.layers))[list(results.layers).index(model)]
    inner = places[1:-1]
    shown = {inner[round(i * (len(inner) - 1) / max(_INNER - 1, 1))] for i in range(_INNER)} if inner else ()
    lines: list[tuple[str, dict[str, Any]]] = []
    for place in places:
        if place == "x" and model == next(iter(results.layers)):
            lines.append((place, {"color": INK, "lw": 1.8, "marker": "o", "label": "x"}))
        elif place == "f(x)":
            style = {"color": colour, "lw": 2.4, "marker": "o", "label": f"{model}, f(x)"}
            lines.append((place, style))
        elif place in shown:
            dash = ("--", ":", "-.")[sorted(shown, key=places.index).index(place) % 3]
            style = {"color": colour, "lw": 1.1, "ls": dash, "marker": ".", "label": f"{model}, {place}"}
            lines.append((place, style))
    return lines


def _doses(axes: Axes, results: Results, task: Task) -> None:
    observer = results.protocol.observers[0]
    for model in results.layers:
        for place, style in _series(results, model):
            outcomes = results.at(model=model, where=place, observer=observer)
            outcomes = [o for o in outcomes if o.question == (task.kind, task.size, task.contrast)]
            _line(axes, [o.dose for o in outcomes], outcomes, style)
    if len(results.protocol.doses) > 1:
        axes.set_xscale("log")
        axes.set_xticks(results.protocol.doses, [f"{d:g}" for d in results.protocol.doses])
        axes.minorticks_off()
    _finish(axes, f"dose; disc of {task.size:g} mm, {task.contrast:+g} HU")
    axes.legend(fontsize=8, frameon=False)


def _over(axes: Axes, results: Results, tasks: Sequence[Task], what: str, title: str) -> None:
    observer, dose = results.protocol.observers[0], results.protocol.doses[-1]
    asked = {(t.kind, t.size, t.contrast) for t in tasks}
    for model in results.layers:
        for place, style in _series(results, model):
            outcomes = [
                o
                for o in results.at(model=model, where=place, observer=observer, dose=dose)
                if o.question in asked
            ]
            outcomes = sorted(outcomes, key=lambda o: getattr(o, what))
            _line(axes, [getattr(o, what) for o in outcomes], outcomes, style)
    _finish(axes, title)


def _line(axes: Axes, at: Sequence[float], outcomes: Sequence[Outcome], style: dict[str, Any]) -> None:
    values = [o.detectability for o in outcomes]
    axes.plot(at, values, ms=4, **style)
    if style["lw"] > 1.5:
        low, high = ([getattr(o, f"detectability_{end}") for o in outcomes] for end in ("low", "high"))
        axes.fill_between(at, low, high, color=style["color"], alpha=0.12, lw=0)


def _layers(axes: Axes, results: Results, model: str, colour: str) -> None:
    """Mean efficiency of every layer, with its 95 % interval."""
    observer = results.protocol.observers[0]
    places = results.layers[model]
    for group, style in zip(ALL, ("-", "--"), strict=True):
        shares = [s for s in results.shares if (s.model, s.observer, s.group) == (model, observer, group)]
        if shares:
            at = [places.index(s.where) for s in shares]
            axes.plot(at, [s.value for s in shares], style, color=colour, lw=2, marker="o", ms=4, label=group)
            low, high = [s.low for s in shares], [s.high for s in shares]
            axes.fill_between(at, low, high, color=colour, alpha=0.14, lw=0)
    axes.axhline(1.0, color=QUIET, lw=0.8)
    axes.set_ylim(0, 1.3)
    axes.set_xticks(range(len(places)), places, rotation=40, ha="right", fontsize=9)
    axes.set_title(model, fontsize=10.5, **PLAIN)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False, loc="lower left")


def _finish(axes: Axes, title: str) -> None:
    axes.set_xlabel(title, fontsize=9.5, color=INK)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
