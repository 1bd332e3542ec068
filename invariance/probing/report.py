"""The files of a probe: ``result.json``, a figure, and a page about one or several layers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import page
from ctinv.invariance.reporting.packing import Picture
from ctinv.invariance.reporting.viewer import SCRIPTS, shown_data

from .figure import grey_window, probe_png
from .findings import figures
from .story import bars, decisions, grid_map, plots

if TYPE_CHECKING:
    from .findings import Probe

__all__ = ["probe_html", "save", "save_report"]


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
            "decisions": decisions(p),
            "bars": bars(p),
            "plots": plots(p),
            "map": grid_map(p),
            "scores": scores(figures(p)),
            "figure": png,
        }
        for p, png in zip(probes, pictures, strict=True)
    ]
    first = probes[0]
    return page(
        "probe.html.j2",
        scripts=[*SCRIPTS, "report.js"],
        title=f"What {first.meta.model} sees of a lesion of {first.finding.lesion}",
        sections=sections,
        images=_images(first),
        figures={"name": "ctinv-probe-figures", "rows": _csv(probes)},
        notices=list(dict.fromkeys(notice for p in probes for notice in p.meta.notices)),
        methods=_methods(probes),
        command=_command(probes),
        facts=_facts(first),
        level=first.level,
    )


def _images(probe: Probe) -> dict[str, Any]:
    """The slice with and without the lesion, before and after the denoiser, for the viewer."""
    rows, columns = probe.window
    column, row = probe.finding.lesion.at or (
        (columns.start + columns.stop) / 2,
        (rows.start + rows.stop) / 2,
    )
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    centre, reach = grey_window(probe)
    before, after = probe.denoised
    return shown_data(
        [
            Picture("x", "x, the slice", "ct", probe.x),
            Picture("lesion", "x with the lesion", "ct", probe.x + probe.signal),
            Picture("denoised", "f(x)", "ct", before),
            Picture("output", "f of x with the lesion", "ct", after),
            Picture("passed", "What f lets through of it", "difference", after - before),
        ],
        spacing=probe.meta.spacing,
        name=f"ctinv-probe-{probe.meta.layer}",
        difference=float(np.abs(probe.finding.lesion.contrast)),
        window=(centre - reach, centre + reach),
        chosen=("x", "lesion", "passed"),
        focus=(column, row, max(1.0, min(probe.x.shape) / (1.5 * side))),
    )


def _csv(probes: Sequence[Probe]) -> list[list[str | float | None]]:
    head = ("layer", "key", "figure", "value", "low", "high", "interval", "n", "meaning")
    rows = (
        [p.meta.layer, s.key, s.title, s.value, s.low, s.high, s.interval, s.n, s.meaning]
        for p in probes
        for s in scores(figures(p))
    )
    return [list(head), *rows]


def _methods(probes: Sequence[Probe]) -> list[str]:
    """Paragraphs for the methods section of a paper."""
    meta, lesion = probes[0].meta, probes[0].finding.lesion
    layers = ", ".join(p.meta.layer for p in probes)
    at = lesion.at or (0, 0)
    mm = " × ".join(f"{step:.3g}" for step in meta.spacing)
    model = f"{meta.model} (SHA-256 {meta.model_hash[:12]}…)"
    return [
        f"A disc of {lesion.size:g} mm and {lesion.contrast:+g} HU with a soft edge was put into a CT slice "
        f"({mm} mm a pixel) at column {at[0]}, row {at[1]}, in tissue of {meta.tissue:.0f} HU. The best "
        "linear (Hotelling) observer told slices with it from slices without it, at "
        f"{meta.realisations or 0} simulated noise realisations of the slice's own level: in the image, in "
        f"{layers} of the denoiser {model}, and in its output. It learned on one half of the realisations "
        f"and was judged on the other, and the reverse. d' of {probes[0].level:g} or more counts as visible.",
        f"Software: {', '.join(f'{k} {v}' for k, v in meta.versions.items())}. Seed {meta.seed}.",
        "Reference: H. H. Barrett, K. J. Myers, Foundations of image science, Wiley, 2004.",
    ]


def _command(probes: Sequence[Probe]) -> str:
    """The command that makes this again, given the same model file and slice."""
    first = probes[0]
    meta, lesion = first.meta, first.finding.lesion
    words = ["ctinv", "probe", "--model", meta.model]
    for p in probes:
        words += ["--layer", p.meta.layer]
    if meta.source:
        words += ["--input", meta.source]
    at = "" if lesion.at is None else f",at={lesion.at[0]}:{lesion.at[1]}"
    words += ["--lesion", f"size={lesion.size:g}mm,contrast={lesion.contrast:g}HU{at}"]
    if first.grid:
        sizes, contrasts = (
            ":".join(f"{v:g}" for v in part) for part in (first.grid.sizes, first.grid.contrasts)
        )
        words += ["--grid", f"sizes={sizes},contrasts={contrasts}"]
    words += ["--level", f"{first.level:g}", "--realisations", str(meta.realisations)]
    words += ["--intensity", meta.intensity, "--seed", str(meta.seed)]
    return shlex.join(words)


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
    ]
