"""The figure of a probe: the place with and without the lesion, and maps of detectability."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.infra.palette import INK, PLAIN, QUIET

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .findings import Probe

__all__ = ["grey_window", "probe_png"]

_MAPS = (("image", "in the image x"), ("layer", "in the layer"), ("output", "in f(x)"))


def probe_png(probe: Probe) -> bytes:
    """Draw a probe: the place with and without the lesion, before and after denoising; maps below.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = 2 if probe.grid else 1
    figure = Figure(figsize=(13, 3.9 * rows), dpi=110, facecolor="white")
    height, head = 1.0 / rows, 0.36 / (3.9 * rows)
    title = f"Layer {probe.meta.layer} of {probe.meta.model}, a lesion of {probe.finding.lesion}"
    figure.text(0.015, 1 - 0.6 * head, title, fontsize=12.5, va="center", fontweight="bold", **PLAIN)
    x, after = probe.x[probe.window], probe.denoised[(slice(None), *probe.window)]
    centre, reach = grey_window(probe)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": centre - reach, "vmax": centre + reach}
    change = after[1] - after[0]
    top = abs(probe.finding.lesion.contrast)
    panels = [
        ("x", x, grey),
        ("x with the lesion", x + probe.signal[probe.window], grey),
        ("f(x)", after[0], grey),
        ("f of x with the lesion", after[1], grey),
        ("what f lets through of it", change, {"cmap": "RdBu_r", "vmin": -top, "vmax": top}),
    ]
    size = 0.158
    for place, (title, image, style) in enumerate(panels):
        axes = figure.add_axes(
            (0.015 + place * (size + 0.008), 1 - height + 0.14 * height, size, 0.68 * height)
        )
        axes.set_axis_off()
        mapped = axes.imshow(image, interpolation="nearest", **style)
        axes.set_title(title, fontsize=10, **PLAIN)
    bar = figure.colorbar(
        mapped, cax=figure.add_axes((0.86, 1 - height + 0.22 * height, 0.01, 0.52 * height))
    )
    bar.set_label("change [HU]", fontsize=9.5, color=INK)
    bar.ax.tick_params(labelsize=9)
    figure.text(
        0.015,
        1 - height + 0.06 * height,
        f"Grey images: {centre:.0f} ± {reach:.0f} HU, {x.shape[1]} × {x.shape[0]} pixels around column "
        f"{(probe.finding.lesion.at or (0, 0))[0]}, row {(probe.finding.lesion.at or (0, 0))[1]}.",
        fontsize=9.5,
        **{**PLAIN, "color": QUIET},
    )
    if probe.grid:
        for place, (of, words) in enumerate(_MAPS):
            axes = figure.add_axes((0.075 + place * 0.315, 0.14 * height, 0.255, 0.68 * height))
            _map(axes, probe, of, f"d' {words}")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _map(axes: Axes, probe: Probe, of: str, title: str) -> None:
    """One detectability map, each cell with its number; what is visible is dark."""
    values, level = probe.map(of), probe.level
    assert probe.grid is not None
    shown = np.nan_to_num(values, posinf=3 * level)
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=2 * level, aspect="auto", interpolation="nearest")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            axes.text(
                column,
                row,
                f"{value:.1f}" if np.isfinite(value) else "∞",
                ha="center",
                va="center",
                fontsize=10,
                color="white" if value > 1.2 * level else INK,
                fontweight="bold" if value >= level else "normal",
            )
    axes.set_title(title, fontsize=10, **PLAIN)
    axes.set_xticks(range(len(probe.grid.sizes)), [f"{size:g}" for size in probe.grid.sizes], fontsize=9)
    axes.set_yticks(range(len(probe.grid.contrasts)), [f"{c:+g}" for c in probe.grid.contrasts], fontsize=9)
    axes.set_xlabel(f"diameter [mm]; bold: visible, d' of {level:g} or more", fontsize=9, color=QUIET)
    axes.set_ylabel("contrast [HU]", fontsize=9, color=QUIET)
    axes.tick_params(length=0)


def _title(probe: Probe) -> str:
    return f"Layer {probe.meta.layer} of {probe.meta.model}, a lesion of {probe.finding.lesion}"


def grey_window(probe: Probe) -> tuple[float, float]:
    """Centre and half width of a grey window in which the lesion shows, HU."""
    x = probe.x[probe.window]
    window = choose_window(x)
    low, high = window.limits
    middle = float(np.median(x))
    centre = middle if low < middle < high else window.centre
    return centre, max(100.0, 2.5 * abs(probe.finding.lesion.contrast))
