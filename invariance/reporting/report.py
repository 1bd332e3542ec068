"""The report: one self-contained HTML page about one analysis."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.infra.pages import number, page
from ctinv.invariance.infra.records import plain

from .figure import figure_png
from .methods import command, methods_text
from .overview import Case, summary
from .story import bracket, decisions, groups
from .viewer import SCRIPTS, viewer_data

if TYPE_CHECKING:
    from .added import Added
    from .result import AnalysisResult

__all__ = ["Case", "report_html", "summary"]


def report_html(e: AnalysisResult, figure: bytes | None = None, added: Sequence[Added] = ()) -> str:
    """Write the report of one explanation as one HTML page of at most 10 MB.

    The page holds its images in HU, its style and its scripts; it loads nothing. What spans several
    explanations is written by :func:`~ctinv.invariance.reporting.overview.summary`.

    Arguments:
        e: The explanation.
        figure: Its figure as a PNG file; drawn anew where None.
        added: Answers to further questions about the same slice and layer.
    """
    kind, picture = _smaller(figure if figure is not None else figure_png(e, compact=True))
    return page(
        "report.html.j2",
        scripts=[*SCRIPTS, "report.js"],
        title=f"What layer {e.meta.layer or '(unnamed)'} of {e.meta.model or 'the model'} cannot see",
        layer=e.meta.layer or "(unnamed)",
        verdict=e.audit.verdict,
        bracket=bracket(e),
        decisions=decisions(e),
        images=viewer_data(e, [picture for one in added for picture in one.pictures]),
        added=added,
        groups=groups(e),
        figures={"name": f"ctinv-{e.meta.layer or 'layer'}-figures", "rows": _csv(e)},
        notices=_notices(e),
        methods=methods_text(e),
        command=command(e),
        facts=_facts(e),
        figure=picture,
        figure_kind=kind,
        samples=e.meta.samples or len(e.samples),
        refined=e.meta.refinement.samples or len(e.samples),
        rho=f"{100 * (e.meta.refinement.rho or 0):g} %",
        std=float(np.mean(e.std)),
        std_flow=None if e.std_flow is None else float(np.mean(e.std_flow)),
    )


def _smaller(png: bytes) -> tuple[str, bytes]:
    """A figure as WebP, a quarter of its size, where the imaging library can write that.

    The library's own choice of method takes twice as long and saves 8 %.
    """
    from PIL import Image, features

    if not features.check("webp"):
        return "png", png
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").save(buffer, "WEBP", quality=85, method=2)
    return "webp", buffer.getvalue()


def _notices(e: AnalysisResult) -> list[str]:
    """What went wrong and what must be known: controls that failed, a search cut short, the fit's notes."""
    notices = []
    if e.audit.controls is not None and e.audit.controls.failed:
        notices.append(f"Controls that failed: {', '.join(e.audit.controls.failed)}.")
    if e.bounds.converged is False:
        notices.append("The search for hidden changes had not ended; more may be hidden than was found.")
    strange = e.audit.image.strangeness
    if strange is not None and not strange.familiar:
        notices.append("The image is unlike those that the prior was fitted on.")
    fit = e.meta.fit.notices if e.meta.fit and e.meta.fit.notices else ()
    return [*notices, *dict.fromkeys([*e.meta.notices, *fit])]


def _csv(e: AnalysisResult) -> list[list[str | float | None]]:
    """All figures as rows of a CSV file."""
    head = ("key", "figure", "value", "unit", "low", "high", "interval", "n", "meaning")
    rows = (
        [s.key, s.title, s.value, s.unit, s.low, s.high, s.interval, s.n, s.meaning] for s in scores(e.audit)
    )
    return [list(head), *rows]


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
