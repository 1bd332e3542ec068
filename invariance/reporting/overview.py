"""The page that spans many cases: layers, slices, models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import link, number, page

from .parts import SCRIPTS, Cell, Column, Matrix, Table, map_png, thumbnail

if TYPE_CHECKING:
    from .result import AnalysisResult

__all__ = ["FIGURES", "Case", "overview_html", "summary"]

FIGURES = (
    Column("bounds.lower", "Anatomy hidden, at least", "HU", meaning="Proven by samples."),
    Column("bounds.noise", "Noise hidden, at least", "HU", meaning="Proven by samples."),
    Column("bounds.upper", "Hidden, at most", "HU", meaning="On average over held-out slices."),
    Column("map.noise", "Noise of the image", "HU"),
    Column("leakage.refined", "Leakage", meaning="0 is invisible to the layer, 1 as visible as any change."),
    Column("noise_ratio.refined", "Noise ratio", meaning="Change of the layer over that by noise."),
    Column("embedding.rmse", "Error of the autoencoder", "HU"),
    Column("controls", "Controls passed"),
)
"""The figures that an overview shows, by their keys in :func:`ctinv.invariance.audit.scores.scores`."""

_WORDS = (
    Column("case", "Case", number=False),
    Column("model", "Model", number=False),
    Column("layer", "Layer", number=False),
    Column("source", "Image", number=False),
)
_MOST_MAPS = 200  # about 5 kB each
_MOST_ROWS = 60
_MOST_LINES = 8


@dataclass(frozen=True, eq=False)
class Case:
    """One finished analysis, as light as an overview of thousands needs it.

    Arguments:
        model: The model's name.
        layer: The layer's name.
        source: The image's name.
        figures: Audit figures by key, see :data:`FIGURES`; further keys do no harm.
        path: Its report, relative to the overview's folder; None where there is none.
        thumbnail: Its map made small by :func:`ctinv.invariance.reporting.parts.thumbnail`, (h, w) HU.
        verdict: The verdict in one text.
    """

    model: str
    layer: str
    source: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    path: PurePosixPath | None = None
    thumbnail: npt.NDArray[np.float32] | None = None
    verdict: str = ""

    @classmethod
    def of(cls, e: AnalysisResult, path: PurePosixPath | None = None) -> Case:
        """What an overview needs of an explanation, which need not be kept.

        Arguments:
            e: The explanation.
            path: Its report, relative to the overview's folder.
        """
        return cls(
            model=e.meta.model or "the model",
            layer=e.meta.layer or "a layer",
            source=Path(e.meta.source or "image").name,
            figures={row.key: row.value for row in scores(e.audit)},
            path=path,
            thumbnail=thumbnail(e.std),
            verdict=" ".join(e.audit.verdict),
        )

    def value(self, key: str) -> float | None:
        """A figure; None where it is not known or not finite."""
        figure = self.figures.get(key)
        return figure if figure is not None and math.isfinite(figure) else None

    @property
    def bracket(self) -> str:
        """What is hidden, from below and from above, in HU."""
        low = [v for v in (self.value("bounds.lower"), self.value("bounds.noise")) if v is not None]
        above = (self.value("bounds.upper"), self.value("bounds.upper_here"))
        high = max((v for v in above if v is not None), default=None)
        if not low:
            spread = self.value("map.std")
            return "no bounds" if spread is None else f"spread {number(spread)} HU"
        if high is None or high <= max(low):
            return f"{max(low):.1f} HU or more"
        return f"{max(low):.1f} to {high:.1f} HU"

    @property
    def hidden(self) -> float | None:
        """What is hidden at least, HU, anatomy or noise, whichever is more."""
        low = [v for v in (self.value("bounds.lower"), self.value("bounds.noise")) if v is not None]
        return max(low) if low else self.value("map.std")


def summary(
    cases: Sequence[Case],
    path: str | Path,
    *,
    failed: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write one page that spans several layers, images or models.

    It takes light rows rather than explanations, so that thousands of cases need not be kept in memory.

    Arguments:
        cases: At least one; see :meth:`Case.of`.
        path: The HTML file to write; it appears whole or not at all.
        failed: Cases that failed: what they are called, and why.
        notices: What the user should know about the run as a whole.
        facts: What was analysed and how, as names and texts.

    Raises:
        CtinvError: The folder cannot be written.
    """
    path = Path(path)
    html = overview_html(cases, failed=failed, notices=notices, facts=facts)
    return write_files(path.parent, {path.name: html.encode()})[path.name]


def overview_html(
    cases: Sequence[Case],
    *,
    failed: Sequence[tuple[str, str]] = (),
    notices: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """The page of :func:`summary` as text."""
    table = _table(cases)
    return page(
        "cases.html.j2",
        scripts=SCRIPTS,
        title=_title(cases),
        lines=list(_lines(cases)),
        map=_matrix(cases),
        table=table,
        plotted=[c.key for c in table.columns if c.number and table.values(c.key)],
        failed=failed,
        notices=notices,
        facts=facts,
    )


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _counted(names: Sequence[str], what: str) -> str:
    """Up to three names in words, more by their number."""
    if len(names) > 3:
        return f"{len(names)} {what}s"
    return f"{what}{'s' * (len(names) > 1)} {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}"


def _title(cases: Sequence[Case]) -> str:
    models, layers = _distinct(c.model for c in cases), _distinct(c.layer for c in cases)
    named = models[0] if len(models) == 1 else _counted(models, "model")
    return f"What {_counted(layers, 'layer')} of {named} cannot see"


def _lines(cases: Sequence[Case]) -> Iterator[dict[str, str]]:
    """The verdicts where they are few, otherwise what hides most and least."""
    sources = len({c.source for c in cases})
    models = len({c.model for c in cases})
    if len(cases) <= _MOST_LINES:
        for c in cases:
            which = " ".join(filter(None, [c.model if models > 1 else "", c.layer]))
            which += f", {c.source}" if sources > 1 else ""
            yield {"which": which, "text": c.verdict or "no verdict was recorded; see its audit."}
        return
    counted = f"{len(cases)} cases: {models} model{'s' * (models > 1)}, "
    counted += f"{len({(c.model, c.layer) for c in cases})} layers, {sources} image{'s' * (sources > 1)}."
    yield {"which": "", "text": counted}
    known = sorted((c for c in cases if c.hidden is not None), key=lambda c: c.hidden or 0.0)
    if known:
        least, most = known[0], known[-1]
        text = "; ".join(
            f"{word} is hidden at {c.layer} of {c.model}, {c.source} ({c.bracket})"
            for word, c in (("most", most), ("least", least))
        )
        yield {"which": "", "text": text[0].upper() + text[1:] + "."}


def _table(cases: Sequence[Case]) -> Table:
    shown = [c for c in FIGURES if any(case.value(c.key) is not None for case in cases)]
    rows: list[list[str | float | None]] = [
        [
            str(n),
            case.model,
            case.layer,
            case.source,
            *(case.value(c.key) for c in shown),
        ]
        for n, case in enumerate(cases, start=1)
    ]
    links = [None if case.path is None else link(case.path) for case in cases]
    caption = f"{len(cases)} cases; the first column opens the report of each"
    return Table("cases", "ctinv-cases", caption, [*_WORDS, *shown], rows, links)


def _matrix(cases: Sequence[Case]) -> Matrix | None:
    """Images by layers where they fit on a page, else models by layers, averaged over images."""
    if len(cases) < 2:
        return None
    models, sources = _distinct(c.model for c in cases), _distinct(c.source for c in cases)
    by_image = len(sources) > 1 and len(sources) * len(models) <= _MOST_ROWS
    several = len(models) > 1
    groups: dict[str, dict[str, list[Case]]] = {}
    for c in cases:
        head = c.model
        if by_image:
            head = f"{c.model}, {c.source}" if several else c.source
        groups.setdefault(head, {}).setdefault(c.layer, []).append(c)
    layers = _distinct(c.layer for c in cases)
    pictured = len(cases) <= _MOST_MAPS and all(len(g) == 1 for row in groups.values() for g in row.values())
    maps = [c.thumbnail for c in cases if c.thumbnail is not None] if pictured else []
    top = float(np.percentile(np.concatenate([m.ravel() for m in maps]), 99.5)) if maps else 0.0
    rows = [
        [_cell(row[layer], top if maps else None) if layer in row else None for layer in layers]
        for row in groups.values()
    ]
    if maps:
        caption = (
            f"Maps of the spread of hidden changes, black 0 HU to white {top:.1f} HU, one scale for all; "
        )
        caption += "below each, what is hidden at least and at most"
    else:
        caption = "What is hidden at least, mean over images; the stronger the colour, the more"
    corner = ("image" if by_image else "model") + " / layer"
    return Matrix(caption, corner, layers, list(groups), rows)


def _cell(group: Sequence[Case], top: float | None) -> Cell:
    (first, *others) = group
    known = [c.hidden for c in group if c.hidden is not None]
    value = float(np.mean(known)) if known else None
    if others:
        return Cell("not available" if value is None else f"{value:.1f} HU, n = {len(known)}", value)
    address = None if first.path is None else link(first.path)
    picture = None
    if top is not None and first.thumbnail is not None:
        picture = map_png(first.thumbnail, top)
    told = f"Map of {first.layer} of {first.model}, {first.source}"
    return Cell(first.bracket, value, address, picture, told)
