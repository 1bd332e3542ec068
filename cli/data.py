"""``ctinv data``: look at CT files, and simulate low dose."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Screen
from .images import Images, read_slices, tell_left_out
from .options import (
    json_option,
    name_options,
    out_option,
    quiet_option,
    seed_option,
    series_option,
    value_options,
)

if TYPE_CHECKING:
    from ctinv.adapters._types import Image
    from ctinv.invariance.data.simulation.dose import Kernel

__all__ = ["data"]


@click.group()
def data() -> None:
    """Look at CT images and prepare them."""


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Also write a page with a picture of every series.",
)
@value_options
@name_options
@json_option
@quiet_option
def inspect(
    path: Path,
    report: Path | None,
    offset: float | None,
    scale: float | None,
    names: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Tell what a file or a folder holds; exit 0 where it is readable CT, 2 where it is not.

    \b
    Example:
      ctinv data inspect scans --report scans.html
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.data import inspect as look
        from ctinv.invariance.data import overview_html
        from ctinv.invariance.infra.files import check_writable, write_files

        if report is not None:
            check_writable(report.parent)
        inspected = look(path, offset=offset, scale=scale)
        if report is not None:
            write_files(
                report.parent,
                {report.name: overview_html(inspected, offset=offset, scale=scale, names=names).encode()},
            )
        if as_json:
            screen.result(inspected)
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
            for row in inspected["series"]
        ]
        heads = ("Series", "Patient", "Slices", "Pixels", "Spacing [mm]", "HU", "Kernel", "kVp")
        plural = "" if inspected["slices"] == 1 else "s"
        screen.table(f"{inspected['path']}: {inspected['slices']} CT slice{plural}", heads, rows)
        for row in inspected["series"]:
            if row["note"]:
                screen.note(f"note: {row['description'] or row['key']}: {row['note']}")
        tell_left_out(screen, [(Path(file), reason) for file, reason in inspected["skipped"].items()])
        if report is not None:
            screen.line(f"written to {report}")


@data.command()
@click.argument("spec", metavar="FOLDER")
@json_option
@quiet_option
def pairs(spec: str, as_json: bool, quiet: bool) -> None:
    """Show how low and high dose pair, slice by slice; FOLDER may be low=FOLDER,high=FOLDER.

    \b
    Example:
      ctinv data pairs low=quarter_1mm,high=full_1mm
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.data import find_scans

        everything = find_scans(spec)
        matches = () if everything is None else everything.matches
        rows = [
            {
                "patient": one.patient,
                "kernel": one.key[0],
                "place": one.height,
                "low": None if m.low is None else m.low.name,
                "high": None if m.high is None else m.high.name,
                "problem": m.problem or None,
            }
            for m in matches
            if (one := m.low or m.high) is not None
        ]
        scans: list[dict[str, Any]] = [
            {"patient": s.patient, "slices": len(s.names)}
            for s in (() if everything is None else everything.scans)
        ]
        if as_json:
            screen.result({"scans": scans, "slices": rows})
            return
        if everything is None:
            screen.line("nothing speaks of low dose: all of it counts as high dose")
            return
        heads = ("Patient", "Kernel", "Place [mm]", "Low dose", "High dose", "Left out because")
        screen.table("", heads, [tuple(_cell(value) for value in row.values()) for row in rows])
        screen.line(
            f"{sum(s['slices'] for s in scans)} pairs of {len(scans)} patients, "
            f"{sum(row['problem'] is not None for row in rows)} slices left out"
        )


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--dose",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Fraction of the routine dose.",
)
@click.option(
    "--kernel",
    type=click.Choice(["smooth", "medium", "sharp"]),
    default="smooth",
    show_default=True,
    help="Whose noise texture: that of a body, a medium, or a lung or bone kernel.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["dicom", "npy"]),
    default="dicom",
    show_default=True,
    help="What to write: npy holds HU as float32, unrounded.",
)
@click.option(
    "--deidentify",
    is_flag=True,
    help="Remove what tells the patient from the tags (DICOM PS3.15, basic profile; extra 'deidentify').",
)
@series_option
@value_options
@name_options
@out_option("low-dose")
@seed_option
@json_option
@quiet_option
def simulate(
    source: Path,
    dose: float,
    kernel: Kernel,
    kind: str,
    series: str | None,
    offset: float | None,
    scale: float | None,
    names: str | None,
    deidentify: bool,
    out: Path,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write CT slices as they would look at a lower dose.

    DICOM files get the tags of their source, the patient's included, unless --deidentify is given.

    \b
    Example:
      ctinv data simulate slice.dcm --dose 0.25 --out low-dose
    """
    with Screen(as_json, quiet) as screen:
        import numpy as np
        from ctinv.adapters.errors import ImageError
        from ctinv.invariance.data import new_series_uid, simulate_low_dose, write_dicom
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.infra.randomness import Purpose, rng
        from ctinv.invariance.runs.cases import folder_names

        check_writable(out)
        slices = read_slices(Images(source, series, offset, scale, names), screen)
        for one in slices:
            if one.spacing is None:
                raise ImageError(
                    f"{one.source} does not say its pixel spacing, which noise depends on; give DICOM"
                )
        uid = new_series_uid()
        written: list[Path] = []
        out.mkdir(parents=True, exist_ok=True)
        stems = folder_names([Path(one.name.removesuffix(".gz")).stem for one in slices])
        with screen.progress() as progress:
            for number, (one, name) in enumerate(zip(slices, stems, strict=True), start=1):
                noise = rng(seed, Purpose.DOSE, number)
                low = simulate_low_dose(
                    one.hu,
                    one.spacing or (1.0, 1.0),
                    dose,
                    noise,
                    kernel=kernel,
                )
                image = dataclasses.replace(one, hu=np.where(one.valid, low, one.hu).astype(np.float32))
                if kind == "npy":
                    written.append(_write_npy(out / f"{name}.npy", image.hu))
                else:
                    template = one if "sop_uid" in one.meta else None
                    known: Any = {"series_uid": uid, "instance": number, "deidentify": deidentify}
                    text = f"simulated {100 * dose:g} % dose"
                    written.append(write_dicom(image, template, out / f"{name}.dcm", text, **known))
                if progress is not None:
                    progress("simulating", number, len(slices))
        if as_json:
            screen.result({"dose": dose, "seed": seed, "files": [str(path) for path in written]})
        if kind == "dicom" and not deidentify and any("sop_uid" in one.meta for one in slices):
            screen.note("note: the tags were copied, the patient's included; --deidentify leaves them out")
        count = f"{len(written)} slice{'' if len(written) == 1 else 's'}"
        screen.line(f"written to {out}: {count} at {100 * dose:g} % dose")


def _write_npy(path: Path, hu: Image) -> Path:
    import numpy as np
    from ctinv.invariance.infra.files import write_files

    buffer = io.BytesIO()
    np.save(buffer, hu, allow_pickle=False)
    return write_files(path.parent, {path.name: buffer.getvalue()})[path.name]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spacing(row: dict[str, Any]) -> str:
    plane = " × ".join(f"{mm:.4g}" for mm in row["spacing"] or ())
    if not plane:
        return "not stated"
    return plane if row["slice_distance"] is None else f"{plane}, slices {row['slice_distance']:g} apart"
