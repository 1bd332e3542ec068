"""``ctinv data``: look at CT files, and simulate low dose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from .console import Screen
from .images import folder_names, read_slices
from .options import json_option, out_option, quiet_option, seed_option, series_option

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


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--dose",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of the routine dose.",
)
@click.option("--kernel", type=click.Choice(["smooth", "sharp"]), default="smooth", show_default=True)
@series_option
@out_option("low-dose")
@seed_option
@json_option
@quiet_option
def simulate(
    source: Path,
    dose: float,
    kernel: str,
    series: str | None,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write CT slices as they would look at a lower dose, as DICOM.

    \b
    Example:
      ctinv data simulate slice.dcm --dose 0.25 --out low-dose
    """
    with Screen(as_json, quiet) as screen:
        import numpy as np
        from ctinv.adapters.errors import ImageError
        from ctinv.invariance.data import new_series_uid, simulate_low_dose, write_dicom
        from ctinv.invariance.files import check_writable

        check_writable(out)
        slices = read_slices(source, series)
        for one in slices:
            if one.spacing is None:
                raise ImageError(
                    f"{one.source} does not say its pixel spacing, which noise depends on; give DICOM"
                )
        uid, written = new_series_uid(), []
        out.mkdir(parents=True, exist_ok=True)
        names = folder_names([(one.source or source).name.removesuffix(".dcm") for one in slices])
        with screen.progress() as progress:
            for number, (one, name) in enumerate(zip(slices, names, strict=True), start=1):
                rng = np.random.default_rng([seed, number])
                low = simulate_low_dose(
                    one.hu,
                    one.spacing or (1.0, 1.0),
                    dose,
                    rng,
                    kernel="sharp" if kernel == "sharp" else "smooth",
                )
                image = dataclasses.replace(one, hu=np.where(one.valid, low, one.hu))
                template = one if "sop_uid" in one.meta else None
                text = f"simulated {100 * dose:g} % dose"
                path = write_dicom(
                    image, template, out / f"{name}.dcm", text, series_uid=uid, instance=number
                )
                written.append(str(path))
                if progress is not None:
                    progress("simulating", number, len(slices))
        if as_json:
            screen.result({"dose": dose, "seed": seed, "files": written})
        screen.line(f"written to {out}: {len(written)} slices at {100 * dose:g} % dose")


def _spacing(row: dict[str, Any]) -> str:
    plane = " × ".join(f"{mm:.4g}" for mm in row["spacing"] or ())
    if not plane:
        return "not stated"
    return plane if row["slice_distance"] is None else f"{plane}, slices {row['slice_distance']:g} apart"
