"""``ctinv probe``: whether a layer can tell a lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, distinct, open_model, settle_units
from .options import (
    data_option,
    device_option,
    input_options,
    json_option,
    models_options,
    out_option,
    preset_options,
    quiet_option,
    seed_option,
)

if TYPE_CHECKING:
    from ctinv.adapters.base import Denoiser
    from ctinv.invariance import Explainer, Probe
    from ctinv.invariance.data import CTSlice

__all__ = ["probe"]


def _protocol_options(function: Any) -> Any:
    """What only ``--protocol`` takes."""
    from .probe_protocol import PROTOCOLS

    options = (
        click.option(
            "--protocol",
            "protocols",
            multiple=True,
            type=click.Choice(PROTOCOLS),
            help="For one or more --model: low-contrast does a fixed set of tasks at x, layers and f(x), "
            "over doses; bench measures transfer, noise, bias and streaks of f(x); repeatable.",
        ),
        click.option(
            "--doses", default="1,0.5,0.25", show_default=True, metavar="D,...", help="Of a protocol."
        ),
        click.option(
            "--background",
            type=click.Choice(["uniform", "anatomy"]),
            default="uniform",
            show_default=True,
            help="Of a protocol where no --input is given: a cylinder, or made-up abdomens.",
        ),
        click.option(
            "--observers",
            default="shaped",
            show_default=True,
            metavar="NAME,...",
            help="Of a protocol: shaped, lg, dog, gabor, npwe; the first is drawn.",
        ),
        click.option(
            "--internal-noise",
            "internal",
            default=0.0,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Of a protocol's observers, as a share of the variance of their scores.",
        ),
        click.option(
            "--phantom",
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="A scanned phantom for a protocol: a folder with phantom.yaml, see the page on the probe.",
        ),
        click.option("--projected", is_flag=True, help="A protocol's lesions go into the projections."),
        click.option(
            "--lesion-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A lesion for a protocol: a mask of 0 and 1, or HU above the tissue.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command()
@models_options
@click.option(
    "--layer",
    "-l",
    "layers",
    multiple=True,
    metavar="L",
    help="A layer's name; repeatable; with --protocol a few convolutions are taken where none is given.",
)
@input_options
@_protocol_options
@click.option(
    "--lesion",
    default="size=6mm,contrast=-15HU",
    show_default=True,
    metavar="SPEC",
    help="The lesion: size=6mm,contrast=-15HU[,at=COLUMN:ROW]; without a place, in homogeneous soft tissue.",
)
@click.option(
    "--grid",
    metavar="SPEC",
    help="A detectability map over sizes=2:4:6:8,contrasts=-10:-20:-40, in mm and HU.",
)
@click.option("--level", default=3.0, show_default=True, help="Detectability d' that counts as visible.")
@click.option(
    "--realisations",
    type=click.IntRange(min=16),
    help="Noise realisations.  [default: 128; with --protocol 256, for bench figures 32]",
)
@click.option(
    "--samples",
    "-n",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Samples of the layer's invariances to look for the lesion in; this fits the layer first.",
)
@out_option("ctinv-probe")
@preset_options
@data_option()
@device_option
@seed_option
@json_option
@quiet_option
def probe(
    models: tuple[str, ...],
    layers: tuple[str, ...],
    images: Images,
    protocols: tuple[str, ...],
    lesion: str,
    grid: str | None,
    level: float,
    realisations: int | None,
    samples: int,
    out: Path,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Put a lesion into a slice and say whether layers of a denoiser can tell.

    DIR receives result.json, figure.png and report.html; with several layers each has a folder of
    its own, and one report spans them. With --protocol it also receives outcomes.csv, shares.csv, and a file
    for each denoiser and dose that is done: the same command goes on where it was interrupted.

    \b
    Examples:
      ctinv probe -m yang -l conv7
      ctinv probe -m yang -l conv7 --lesion size=4mm,contrast=-30HU
      ctinv probe -m chen -l conv3 -l conv5 --grid sizes=2:4:6,contrasts=-15:-30
      ctinv probe -m chen --protocol low-contrast --doses 1,0.25 --realisations 16
      ctinv probe -m chen -m yang --protocol bench --doses 1,0.25
    """
    own = {key: options.pop(key) for key in _PROTOCOLS_OWN}
    if protocols:
        own |= {"protocols": tuple(dict.fromkeys(protocols)), "realisations": realisations, "seed": seed}
        with Screen(as_json, quiet) as screen:
            return _protocol(models, layers, images, own, options, out, screen)
    spec = ModelSpec(model=_only(models, layers), **options)
    with Screen(as_json, quiet) as screen:
        from ctinv import invariance
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.presets import preset as find_preset
        from ctinv.invariance.probing.lesions import Lesion, LesionGrid

        # Everything that can be refused is refused here, before anything long.
        wanted, sizes = Lesion.parse(lesion), LesionGrid.parse(grid) if grid is not None else None
        check_writable(out)
        find_preset(preset, dict(overrides))
        denoiser = open_model(spec)
        names = distinct(denoiser, layers)
        one = _one_slice(images, screen)
        found_by = settle_units(denoiser, spec, [one], screen)
        _note(screen, denoiser, one)

        fitting = {"data": data, "preset": preset, "overrides": dict(overrides), "seed": seed}
        with screen.progress() as progress:
            explainers = _explainers(denoiser, names if samples else [], {**fitting, "progress": progress})
            probes = invariance.probe(
                denoiser,
                names,
                one,
                wanted,
                grid=sizes,
                level=level,
                realisations=realisations or 128,
                seed=seed,
                explainers=explainers,
                samples=max(samples, 2),
                progress=progress,
            )
        _tell(screen, denoiser, probes)
        probes = tuple(replace(p, meta=replace(p.meta, intensity_found=found_by)) for p in probes)
        _show(screen, *_write(probes, names, out))


_PROTOCOLS_OWN = ("doses", "background", "observers", "internal", "projected", "lesion_file", "phantom")


def _only(models: tuple[str, ...], layers: tuple[str, ...]) -> str:
    """The one model of a probe that is no protocol.

    Raises:
        UsageError: Several, or no layer to probe.
    """
    if len(models) > 1 or not layers:
        given = "several --model" if len(models) > 1 else "no --layer"
        raise click.UsageError(f"{given}; that is for --protocol, a probe takes one model and its layers")
    return models[0]


def _protocol(
    models: tuple[str, ...],
    layers: tuple[str, ...],
    images: Images,
    asked: dict[str, Any],
    options: dict[str, Any],
    out: Path,
    screen: Screen,
) -> None:
    from .probe_protocol import Wanted, numbers, run_protocol

    wanted = Wanted(
        doses=numbers(asked.pop("doses"), "doses"),
        observers=tuple(name.strip() for name in asked.pop("observers").split(",")),
        **asked,
    )
    specs = [ModelSpec(model=model, **options) for model in dict.fromkeys(models)]
    run_protocol(specs, layers, images, wanted, out, screen)


def _tell(screen: Screen, denoiser: Denoiser, probes: Sequence[Probe]) -> None:
    """Say what the probes had to do otherwise than asked."""
    for notice in dict.fromkeys(n for p in probes for n in p.meta.notices if n not in denoiser.notices):
        screen.note(f"note: {notice}")


def _one_slice(images: Images, screen: Screen) -> CTSlice:
    """The slice to probe.

    Raises:
        ImageError: There are several.
    """
    from ctinv.adapters.errors import ImageError

    slices = read_slices(images, screen)
    if len(slices) > 1:
        raise ImageError(f"{images.source} holds {len(slices)} slices; a probe needs one: name its file")
    return slices[0]


def _note(screen: Screen, denoiser: Denoiser, one: CTSlice) -> None:
    """Say what the user should know before anything long."""
    from ctinv.invariance.probing.probe import SPACING

    for notice in denoiser.notices:
        screen.note(f"note: {notice}")
    if one.spacing is None:
        screen.note(f"note: the slice does not tell its pixel spacing; {SPACING[0]} mm is assumed")


def _explainers(denoiser: Denoiser, names: Sequence[str], fitting: Mapping[str, Any]) -> dict[str, Explainer]:
    """A fit of each layer, one by one: a probe keeps no data of many layers at once."""
    from ctinv import invariance

    return {denoiser.resolve(name).name: invariance.fit(denoiser, name, **fitting) for name in names}


def _write(
    probes: Sequence[Probe], names: Sequence[str], out: Path
) -> tuple[list[tuple[Probe, Mapping[str, Path]]], Path | None]:
    """Write each probe, and for several one report on all: the probes with their files, and the report."""
    from ctinv.invariance.probing.report import save, save_report
    from ctinv.invariance.runs.cases import folder_names

    folders = [out / name for name in folder_names(names)] if len(names) > 1 else [out]
    files = [save(one, folder) for one, folder in zip(probes, folders, strict=True)]
    report = save_report(probes, out / "report.html") if len(probes) > 1 else None
    return list(zip(probes, files, strict=True)), report


def _show(screen: Screen, done: list[tuple[Probe, Mapping[str, Path]]], report: Path | None) -> None:
    if screen.as_json:
        results = [{**p.result, "files": {n: str(f) for n, f in files.items()}} for p, files in done]
        screen.result(results[0] if report is None else results)
        return
    from ctinv.invariance.audit.scores import scores
    from ctinv.invariance.probing.findings import figures

    for p, files in done:
        place = p.finding.lesion.at or (0, 0)
        screen.line(
            f"\n{p.meta.model}, {p.meta.layer}: {p.finding.lesion} at column {place[0]}, row {place[1]}"
        )
        screen.table(
            "", ("Figure", "Value", "n"), [(s.title, s.text, str(s.n or "")) for s in scores(figures(p))]
        )
        if p.grid:
            heads = ("d' in the layer (in the image)", *(f"{size:g} mm" for size in p.grid.sizes))
            rows = [
                (f"{contrast:+g} HU", *(f"{a:.1f} ({b:.1f})" for a, b in zip(layer, image, strict=True)))
                for contrast, layer, image in zip(
                    p.grid.contrasts, p.map("layer"), p.map("image"), strict=True
                )
            ]
            screen.table("", heads, rows)
        for line in p.verdict:
            screen.line(line)
        screen.line(
            f"written to {next(iter(files.values())).parent}: {', '.join(sorted(files, reverse=True))}"
        )
    if report is not None:
        screen.line(f"\nthe report on all of them: {report}")
