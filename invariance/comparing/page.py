"""The page of a comparison, and its table for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path, PurePosixPath

import numpy as np
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.infra.pages import link, number, page
from ctinv.invariance.reporting.parts import SCRIPTS, Cell, Column, Matrix, Table, map_png, thumbnail

from .record import ComparisonResult, Place, Row

__all__ = ["HEADS", "cells", "page_html", "table_html"]

_FIGURES = (
    Column("lower", "Anatomy hidden, at least", "HU", meaning="Proven by samples, at one noise ratio."),
    Column("noise", "Noise hidden, at least", "HU", meaning="Proven by samples."),
    Column("upper", "Hidden, at most", "HU", meaning="On average over held-out slices."),
    Column("upper_here", "Hidden, at most, this slice", "HU", meaning="Noise included."),
)
HEADS = ("Layer", "Slices", "Runs", "Anatomy hidden, at least [HU]", "Noise hidden, at least [HU]",
          "Hidden, at most [HU]", "Place")  # fmt: skip


def page_html(
    comparison: ComparisonResult, pictures: Sequence[bytes], links: Mapping[Path, PurePosixPath | None]
) -> str:
    """One self-contained page.

    Arguments:
        comparison: What was found.
        pictures: The figure of each slice, as PNG files.
        links: The report of each analysis, relative to the page.
    """
    table = _cases(comparison, links)
    return page(
        "compare.html.j2",
        scripts=SCRIPTS,
        title=_title(comparison),
        verdict=comparison.verdict,
        heads=HEADS,
        rows=[cells(row) for row in comparison.rows],
        places=[_place(p, png) for p, png in zip(comparison.places, pictures, strict=True)],
        table=table,
        plotted=[c.key for c in _FIGURES if table.values(c.key)],
        notices=comparison.notices,
        facts=_facts(comparison),
        rho=comparison.rho,
    )


def table_html(comparison: ComparisonResult) -> str:
    """The rows as a small HTML table without style or scripts, and the verdict."""
    head = "".join(f"<th>{escape(text)}</th>" for text in HEADS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells(row)) + "</tr>"
        for row in comparison.rows
    )
    said = "".join(f"<p>{escape(line)}</p>" for line in comparison.verdict)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{said}"


def _title(comparison: ComparisonResult) -> str:
    count = len(comparison.rows)
    if count <= 3:
        return "What is hidden: " + " against ".join(row.label for row in comparison.rows)
    return f"What {count} layers hide, side by side"


def cells(row: Row) -> tuple[str, ...]:
    """A row in words, under :data:`HEADS`."""
    figures = (row.lower, row.noise, row.upper, row.rank)
    return (row.label, str(row.slices), str(row.runs), *(_figure(figure) for figure in figures))


def _figure(figure: Figure | None) -> str:
    if figure is None:
        return "not available"
    text = number(figure.value) if figure.unit else f"{figure.value:g}"
    if figure.low is None or figure.high is None:
        return text
    if not figure.unit:
        return f"{text} ({figure.low:g} to {figure.high:g})"
    return f"{text} ({number(figure.low)} to {number(figure.high)}; {figure.interval})"


def _cases(comparison: ComparisonResult, links: Mapping[Path, PurePosixPath | None]) -> Table:
    words = [Column(k, t, number=False) for k, t in (("row", "Layer"), ("slice", "Image"), ("seed", "Seed"))]
    rows: list[list[str | float | None]] = []
    addresses: list[str | None] = []
    for case in comparison.cases:
        figures = (case.lower, case.noise, case.upper, case.upper_here)
        rows.append([case.row, case.slice, "" if case.seed is None else str(case.seed), *figures])
        path = None if case.folder is None else links.get(case.folder)
        addresses.append(None if path is None else link(path))
    caption = f"{len(rows)} analyses; the first column opens the report of each"
    return Table("cases", "ctinv-compare", caption, [*words, *_FIGURES], rows, addresses)


def _place(place: Place, png: bytes) -> dict[str, object]:
    known = bool(np.isfinite(place.ratios).any())
    return {
        "slice": place.slice,
        "figure": png,
        "ratios": _ratios(place) if known and len(place.labels) > 1 else None,
        "sizes": _sizes(place) if place.pairs else None,
    }


def _ratios(place: Place) -> Matrix:
    cells = [
        [None if not np.isfinite(v) else Cell(f"{100 * v:.3g} %", float(v)) for v in row]
        for row in place.ratios
    ]
    caption = (
        "How far the samples that the layer of a row hides move the layer of each column, in % of what noise "
        "moves it; the darker the better seen"
    )
    return Matrix(caption, "hidden from / read in", place.labels, place.labels, cells)


def _sizes(place: Place) -> Matrix:
    """Small maps of what the layer of a row hides and that of a column sees."""
    top = max(float(np.percentile(pair.map, 99.5)) for pair in place.pairs) or 1.0
    sizes = {(pair.hides, pair.sees): pair for pair in place.pairs}

    def cell(a: str, b: str) -> Cell | None:
        pair = sizes.get((a, b))
        if pair is None:
            return None
        told = f"Map of what {a} hides and {b} sees"
        return Cell(f"{pair.size:.2f} HU", pair.size, None, map_png(thumbnail(pair.map), top), told)

    caption = (
        f"What the layer of a row hides and that of a column sees: RMS in the body, and where; black 0 HU to "
        f"white {number(top)} HU, one scale for all"
    )
    cells = [[cell(a, b) for b in place.labels] for a in place.labels]
    heads = "hidden from / visible to", place.labels, place.labels
    return Matrix(caption, *heads, cells, missing="not compared")


def _facts(comparison: ComparisonResult) -> list[tuple[str, str]]:
    facts = [
        ("Noise ratio", "no sample was refined" if comparison.rho is None else f"{comparison.rho:g}"),
        ("Analyses", str(len(comparison.cases))),
        ("Models", ", ".join(sorted({f"{c.model} ({c.model_hash[:12]})" for c in comparison.cases}))),
        ("Slices", str(len({c.image for c in comparison.cases}))),
        ("Seeds", ", ".join(sorted({str(c.seed) for c in comparison.cases}))),
        ("Versions", ", ".join(f"{k} {v}" for k, v in comparison.versions.items())),
    ]
    return [(name, text) for name, text in facts if text]
