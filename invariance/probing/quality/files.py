"""The files of the bench: a table, a figure and a page, or a section of another page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.pages import page
from ctinv.invariance.infra.records import plain

from .figure import bench_png
from .sheet import Sheet, sheets_csv

__all__ = ["bench_part", "save_bench"]


def save_bench(sheets: Sequence[Sheet], folder: str | Path) -> dict[str, Path]:
    """Write ``bench.png``, ``bench.csv``, ``report.html`` and, last, ``result.json``.

    Raises:
        CtinvError: The folder cannot be written.
    """
    png = bench_png(sheets)
    result = {"kind": "bench", "schema_version": 1, "bench": [plain(sheet) for sheet in sheets]}
    names = ", ".join(sheet.model for sheet in sheets)
    text = page("bench.html.j2", title=f"Bench figures of {names}", bench=bench_part(sheets, png))
    return write_files(
        folder,
        {
            "bench.png": png,
            "bench.csv": sheets_csv(sheets).encode(),
            "report.html": text.encode(),
            "result.json": (json.dumps(result, indent=1, allow_nan=False) + "\n").encode(),
        },
    )


def bench_part(sheets: Sequence[Sheet], png: bytes) -> dict[str, Any]:
    """What the section of a page on the bench shows."""
    names = list(dict.fromkeys(row.figure for sheet in sheets for row in sheet.rows))
    by_figure = [{row.figure: row for row in sheet.rows} for sheet in sheets]
    rows = []
    for name in names:
        held = [of.get(name) for of in by_figure]
        first = next(row for row in held if row is not None)
        cells = ["" if row is None else _text(row.output, row.error) for row in held]
        rows.append({"figure": name, "unit": first.unit, "image": _text(first.image, None), "cells": cells})
    one = sheets[0]
    return {
        "models": [sheet.model for sheet in sheets],
        "rows": rows,
        "figure": png,
        "n": one.n,
        "seed": one.seed,
        "doses": ", ".join(f"{dose:g}" for dose in one.doses),
    }


def _text(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if error is None else f"{value:.3g} ± {error:.1g}"
