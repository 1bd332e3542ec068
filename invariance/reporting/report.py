"""The report: one self-contained HTML page about one or several analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.invariance.audit.scores import Score, scores
from ctinv.invariance.infra.pages import number, page
from ctinv.invariance.infra.records import plain

from .figure import figure_png, layers_png
from .overview import Case, summary

if TYPE_CHECKING:
    from .result import AnalysisResult

__all__ = ["Case", "report_html", "summary"]

_HEADLINES = 5


def report_html(explanations: Sequence[AnalysisResult], figures: Sequence[bytes] | None = None) -> str:
    """Write the report of one or several explanations as one HTML page.

    The page holds its images and its style; it loads nothing and runs no scripts.

    Arguments:
        explanations: At least one.
        figures: Their figures as PNG files; None draws them small.
    """
    drawn = figures if figures is not None else [figure_png(e, compact=True) for e in explanations]
    sections = [_section(e, png) for e, png in zip(explanations, drawn, strict=True)]
    several = len(explanations) > 1
    facts = _take_shared(sections, "facts")
    notices = _take_shared(sections, "notices")
    for section in sections:  # its heading says it already
        section["facts"] = [(name, text) for name, text in section["facts"] if name != "Layer"]
    return page(
        "report.html.j2",
        title=_title(explanations),
        sections=sections,
        columns=_columns(sections) if several else [],
        overviews=_overviews(explanations) if several else [],
        facts=facts,
        notices=notices,
    )


def _title(explanations: Sequence[AnalysisResult]) -> str:
    models = list(dict.fromkeys((e.meta.model or "the model") for e in explanations))
    layers = list(dict.fromkeys((e.meta.layer or "a layer") for e in explanations))
    names = ", ".join(models)
    if len(layers) == 1:
        return f"What layer {layers[0]} of {names} cannot see"
    if len(layers) <= 3:
        return f"What layers {', '.join(layers[:-1])} and {layers[-1]} of {names} cannot see"
    return f"What {len(layers)} layers of {names} cannot see"


def _section(e: AnalysisResult, png: bytes) -> dict[str, Any]:
    rows = scores(e.audit)
    return {
        "layer": (e.meta.layer or "unnamed layer"),
        "op": (e.meta.op or ""),
        "source": Path(e.meta.source or "image").name,
        "verdict": e.audit.verdict,
        "figure": png,
        "scores": rows,
        "by_key": {row.key: row for row in rows},
        "samples": e.meta.samples or len(e.samples),
        "refined": e.meta.refinement.samples or len(e.samples),
        "rho": f"{100 * (e.meta.refinement.rho or 0):g} %",
        "std": float(np.mean(e.std)),
        "std_flow": None if e.std_flow is None else float(np.mean(e.std_flow)),
        "facts": _facts(e),
        "notices": list(e.meta.notices),
    }


def _take_shared(sections: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """Take what all sections have alike out of them, so that it is said once."""
    shared = [item for item in sections[0][key] if all(item in s[key] for s in sections)]
    for section in sections:
        section[key] = [item for item in section[key] if item not in shared]
    return shared


def _columns(sections: Sequence[Mapping[str, Any]]) -> list[Score]:
    """The first few figures that every section has: the columns of the table at the top."""
    shared = [row for row in sections[0]["scores"] if all(row.key in s["by_key"] for s in sections)]
    return shared[:_HEADLINES]


def _overviews(explanations: Sequence[AnalysisResult]) -> list[bytes]:
    """For every image that was seen through several layers, their maps side by side."""
    groups: dict[tuple[str, bytes], list[AnalysisResult]] = {}
    for e in explanations:
        groups.setdefault((str(e.meta.source), e.x.tobytes()), []).append(e)
    return [layers_png(g) for g in groups.values() if len(g) > 1]


def _facts(e: AnalysisResult) -> list[tuple[str, str]]:
    """What was analysed and how, as pairs for a table; what is not known is left out."""
    meta = e.meta
    spacing = meta.spacing
    size = f"{e.x.shape[0]} × {e.x.shape[1]} pixels"
    if spacing:
        size += ", " + " × ".join(f"{float(s):.4g}" for s in spacing) + " mm each"
    seed = meta.seed
    facts = [
        ("Image", str(meta.source or "")),
        ("Size", size),
        ("Model", _joined(meta.model, meta.model_kind)),
        ("Model SHA-256", str(meta.model_hash or "")),
        ("Layer", _joined(meta.layer, meta.op)),
        ("Intensity", str(meta.intensity or "")),
        ("Intensity known from", str(meta.intensity_found or "")),
        ("Ran on", str(meta.provider or "")),
        ("Preset", str(meta.preset or "")),
        ("Fitted on", _flat(meta.data)),
        ("Samples", str(meta.samples or "")),
        ("Refinement", _flat(plain(meta.refinement))),
        ("Seed", "" if seed is None else str(seed)),
        ("Versions", _flat(meta.versions)),
        ("Times", _flat(plain(meta.timings), " s")),
    ]
    return [(name, text) for name, text in facts if text]


def _joined(name: Any, kind: Any) -> str:
    return f"{name} ({kind})" if name and kind else str(name or "")


def _flat(value: Any, unit: str = "") -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_flat(v, unit)}" for k, v in value.items())
    if isinstance(value, float):
        return number(value) + unit
    if isinstance(value, list | tuple):
        return ", ".join(_flat(v, unit) for v in value)
    return "" if value is None else f"{value}{unit if isinstance(value, int) else ''}"
