"""``ctinv data``: look at CT files, and simulate low dose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import Screen
from .options import json_option, quiet_option

__all__ = ["data"]


@click.group()
def data() -> None:
    """Look at CT images and prepare them."""


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@quiet_option
def inspect(path: Path, as_json: bool, quiet: bool) -> None:
    """Tell what a file or a folder holds; exit 0 where it is readable CT, 2 where it is not."""
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.data import inspect as look

        found = look(path)
        if as_json:
            screen.result(found)
            return
        rows = [
            (
                row["description"] or row["key"],
                row["patient"],
                str(row["slices"]),
                " × ".join(map(str, row["size"])),
                _spacing(row),
                f"{row['hu_range'][0]:g} to {row['hu_range'][1]:g}",
                str(row["kernel"] or ""),
                str(row["kvp"] or ""),
            )
            for row in found["series"]
        ]
        heads = ("Series", "Patient", "Slices", "Pixels", "Spacing [mm]", "HU", "Kernel", "kVp")
        screen.table(f"{found['path']}: {found['slices']} CT slices", heads, rows)
        for file, reason in found["skipped"].items():
            screen.note(f"left out: {reason if file in reason else f'{file}: {reason}'}")


def _spacing(row: dict[str, Any]) -> str:
    plane = " × ".join(f"{mm:.4g}" for mm in row["spacing"] or ())
    if not plane:
        return "not stated"
    return plane if row["slice_distance"] is None else f"{plane}, slices {row['slice_distance']:g} apart"
