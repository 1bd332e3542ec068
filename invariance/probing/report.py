"""The files of a probe: ``result.json``, a figure, and a page about one or several layers."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.data.windows import choose_window
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import page
from ctinv.invariance.infra.palette import INK, PLAIN, QUIET

from .findings import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .findings import Probe

__all__ = ["probe_html", "probe_png", "save", "save_report"]

_MAPS = (("image", "in the image x"), ("layer", "in the layer"), ("output", "in f(x)"))


def save(probe: Probe, folder: str | Path) -> dict[str, Path]:
    """Write ``figure.png``, ``report.html`` and, last, ``result.json``; whole or not at all.

    Raises:
        CtinvError: The folder cannot be written.
    """
    png = probe_png(probe)
    text = json.dumps(probe.result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    return write_files(
        folder,
        {
            "figure.png": png,
            "report.html": probe_html([probe], [png]).encode(),
            "result.json": text.encode(),
        },
    )


def save_report(probes: Sequence[Probe], path: str | Path) -> Path:
    """Write one page that spans several layers.

    Raises:
        CtinvError: The folder cannot be written.
    """
    path = Path(path)
    return write_files(path.parent, {path.name: probe_html(probes).encode()})[path.name]


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
    figure.text(0.015, 1 - 0.6 * head, _title(probe), fontsize=12.5, va="center", fontweight="bold", **PLAIN)
    x, after = probe.x[probe.window], probe.denoised[(slice(None), *probe.window)]
    window = choose_window(x)
    low, high = window.limits
    centre = float(np.median(x)) if low < float(np.median(x)) < high else window.centre
    reach = max(100.0, 2.5 * abs(probe.finding.lesion.contrast))
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


def probe_html(probes: Sequence[Probe], drawn: Sequence[bytes] | None = None) -> str:
    """One self-contained page about the probes of one slice.

    Arguments:
        probes: At least one.
        drawn: Their figures as PNG files; drawn anew where None.
    """
    pictures = drawn or [probe_png(p) for p in probes]
    sections = [
        {
            "layer": p.meta.layer,
            "op": p.meta.op,
            "verdict": p.verdict,
            "scores": scores(figures(p)),
            "figure": png,
        }
        for p, png in zip(probes, pictures, strict=True)
    ]
    first = probes[0]
    return page(
        "probe.html.j2",
        title=f"What {first.meta.model} sees of a lesion of {first.finding.lesion}",
        sections=sections,
        facts=_facts(first),
        level=first.level,
    )


def _facts(probe: Probe) -> list[tuple[str, str]]:
    meta, at = probe.meta, probe.finding.lesion.at or (0, 0)
    known = "" if meta.spacing_known else ", assumed"
    return [
        ("Image", meta.source),
        ("Pixel spacing", f"{meta.spacing[0]:.4g} × {meta.spacing[1]:.4g} mm{known}"),
        ("Noise", f"{meta.noise:.1f} HU in calm soft tissue (its fine part)"),
        ("Place", f"column {at[0]}, row {at[1]}, in tissue of {meta.tissue:.0f} HU"),
        ("Model", f"{meta.model} ({meta.model_kind}), SHA-256 {meta.model_hash}"),
        ("Shown to the model", meta.shown),
        ("Noise realisations", str(meta.realisations)),
        ("Seed", str(meta.seed)),
        ("Versions", ", ".join(f"{k} {v}" for k, v in meta.versions.items())),
        *((("Notices", "; ".join(meta.notices)),) if meta.notices else ()),
    ]
