"""The files of a protocol: a table, a record, a figure and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import page
from ctinv.invariance.infra.records import plain
from ctinv.invariance.probing.quality.figure import bench_png
from ctinv.invariance.probing.quality.files import bench_part
from ctinv.invariance.probing.quality.sheet import Sheet, sheets_csv

from .figure import protocol_png
from .record import Outcome, Results, to_csv
from .shares import ALL, Share

__all__ = ["protocol_html", "save_protocol"]


def save_protocol(results: Results, folder: str | Path, bench: Sequence[Sheet] = ()) -> dict[str, Path]:
    """Write ``figure.png``, ``outcomes.csv``, ``shares.csv``, ``report.html`` and, last, ``result.json``.

    Arguments:
        results: What was found.
        folder: Where to write.
        bench: The bench figures of the denoisers: they become a section of the page, ``bench.png`` and
            ``bench.csv``.

    Raises:
        CtinvError: The folder cannot be written.
    """
    png = protocol_png(results)
    stored = results.as_dict() | ({"bench": bench} if bench else {})
    text = json.dumps(plain(stored), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    part = bench_part(bench, bench_png(bench)) if bench else None
    files = {
        "figure.png": png,
        "outcomes.csv": to_csv(Outcome, results.outcomes).encode(),
        "shares.csv": to_csv(Share, results.shares).encode(),
    }
    if part is not None:
        files |= {"bench.png": part["figure"], "bench.csv": sheets_csv(bench).encode()}
    page_of = protocol_html(results, png, part)
    return write_files(folder, {**files, "report.html": page_of.encode(), "result.json": text.encode()})


def protocol_html(results: Results, png: bytes, bench: Mapping[str, Any] | None = None) -> str:
    """One self-contained page.

    Arguments:
        results: What was found.
        png: The figure.
        bench: The section on bench figures.
    """
    asked = results.protocol
    observer = asked.observers[0]
    rows = [
        {
            "model": o.model,
            "where": o.where,
            "dose": f"{o.dose:g}",
            "task": f"{o.task} {o.size:g} mm {o.contrast:+g} HU",
            "observer": o.observer,
            "auc": f"{o.auc:.3f} ({o.auc_low:.3f} to {o.auc_high:.3f})",
            "d": f"{o.detectability:.2f} ({o.detectability_low:.2f} to {o.detectability_high:.2f})",
            "efficiency": "" if o.efficiency is None else f"{o.efficiency:.2f}",
        }
        for o in results.outcomes
    ]
    facts: list[tuple[str, Any]] = [
        ("Background", results.scene),
        ("Doses", ", ".join(f"{d:g}" for d in asked.doses)),
        ("Realisations", f"{asked.realisations} of each dose, the same for all alternatives and denoisers"),
        ("Observers", ", ".join(asked.observers)),
        ("Readers", f"{asked.readers}, each taught on one half of the realisations and judged on the other"),
        ("Internal noise", f"{asked.internal:g} of the scores' variance"),
        ("Lesions", "put into the projections" if asked.projected else "put into the image, edge of 0.6 mm"),
        ("Seed", str(asked.seed)),
    ]
    return page(
        "protocol.html.j2",
        title="Low-contrast tasks through the layers of " + ", ".join(results.layers),
        verdict=results.verdict,
        figure=png,
        observer=observer,
        rows=rows,
        shares=_shares(results),
        groups=ALL,
        facts=facts,
        bench=bench,
    )


def _shares(results: Results) -> list[dict[str, Any]]:
    """One row per denoiser and place, by the first observer."""
    first = results.protocol.observers[0]
    shares = {(s.model, s.where, s.group): s for s in results.shares if s.observer == first}
    rows = []
    for model, places in results.layers.items():
        for place in places:
            cells = [shares.get((model, place, group)) for group in ALL]
            texts = ["" if s is None else f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in cells]
            rows.append({"model": model, "where": place, "cells": texts})
    return rows
