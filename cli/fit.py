"""``ctinv fit`` and ``ctinv sample``: the two halves of analyze, for fits worth keeping."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .app import CasesFailedError
from .console import Screen
from .images import Images, find_slices
from .models import ModelSpec, distinct, open_model, settle_units, some_slices
from .options import (
    data_option,
    device_option,
    format_options,
    input_options,
    json_option,
    layer_option,
    memory_option,
    model_options,
    out_option,
    preset_options,
    quantiles_option,
    quiet_option,
    refine_options,
    run_options,
    samples_option,
    seed_option,
)
from .work import Subject, Task, Written, explain_all, notes

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress
    from ctinv.invariance.runs.cases import Shard

__all__ = ["fit", "sample"]


@click.command()
@model_options
@layer_option
@out_option("ctinv-explainer")
@preset_options
@data_option()
@device_option
@seed_option
@json_option
@quiet_option
def fit(
    layers: tuple[str, ...],
    out: Path,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: str | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fit layers of a denoiser and keep the fit in DIR, for ctinv sample.

    With several layers each has a folder of its own in DIR. A fit that was interrupted goes on
    where it stood. Started by torchrun, all processes fit together.

    \b
    Examples:
      ctinv fit --model model.onnx --layer conv7 --data scans --out fitted
      torchrun --nproc-per-node 2 -m ctinv.cli fit -m yang -l conv7 --set flow.blocks=6 -o fitted
    """
    from ctinv.invariance.infra.distributed import joined

    spec = ModelSpec(**options)
    with joined() as everyone, Screen(as_json, quiet, everyone.leads) as screen:
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.presets import preset as find_preset

        check_writable(out)
        find_preset(preset, dict(overrides))
        denoiser = open_model(dataclasses.replace(spec, device=everyone.device(spec.device)))
        wanted = distinct(denoiser, layers)
        settle_units(denoiser, spec, [], screen)
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")

        from ctinv import invariance

        with screen.progress() as progress:
            explainers = invariance.fit(
                denoiser,
                wanted,
                data=data,
                preset=preset,
                overrides=dict(overrides),
                seed=seed,
                progress=progress,
            )
        if not everyone.leads:
            return
        for note in dict.fromkeys(note for e in explainers for note in notes(e)):
            screen.note(note)
        from ctinv.invariance.runs.cases import folder_names

        places = [out / name for name in folder_names(wanted)] if len(wanted) > 1 else [out]
        results: list[dict[str, Any]] = []
        for explainer, place in zip(explainers, places, strict=True):
            explainer.save(place)
            screen.line(f"written to {place}")
            results.append({"folder": str(place), "layer": explainer.layer, "fit": explainer.info})
        if as_json:
            screen.result(results[0] if len(results) == 1 else results)


@click.command()
@model_options
@click.option(
    "--explainer",
    "-e",
    "fitted",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="What ctinv fit wrote for this model.",
)
@input_options
@out_option("ctinv-out")
@samples_option
@refine_options
@quantiles_option
@memory_option
@format_options
@run_options
@device_option
@seed_option
@json_option
@quiet_option
def sample(
    fitted: Path,
    images: Images,
    out: Path,
    samples: int,
    refine: int | None,
    memory: int | None,
    rho: float,
    quantiles: tuple[float, ...],
    formats: tuple[str, ...],
    deidentify: bool,
    shard: Shard,
    fail_fast: bool,
    restart: bool,
    report: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw invariances with a fit that ctinv fit kept.

    \b
    Example:
      ctinv sample --model model.onnx --explainer fitted --input slice.dcm --out out
    """
    from ctinv.invariance.infra.distributed import joined

    spec = ModelSpec(**options)
    with joined() as everyone, Screen(as_json, quiet, everyone.leads) as screen:
        from ctinv.invariance.infra.files import check_writable

        check_writable(out)
        denoiser = open_model(dataclasses.replace(spec, device=everyone.device(spec.device)))
        slices = find_slices(images, screen)
        written = Written(formats, deidentify, report).checked(slices, screen)
        known = {"intensity_found": settle_units(denoiser, spec, some_slices(slices), screen)}

        from ctinv import invariance
        from ctinv.invariance.runs.keys import FitIdentity, files_key

        explainer = invariance.Explainer.load(fitted, denoiser)

        def ready(names: Sequence[str], progress: Progress | None) -> list[invariance.Explainer]:
            return [explainer]

        drawing = {"samples": samples, "refine": refine, "rho": rho, "quantiles": quantiles, "seed": seed}
        identity = FitIdentity(None, None, files_key(fitted))
        subject = Subject(denoiser, [explainer.layer], known, ready, identity)
        task = Task(
            images.source, slices, out, [subject], drawing, shard, memory, fail_fast, restart, written
        )
        failed = explain_all(screen, task)
    if failed:
        raise CasesFailedError(failed, task.count, out)
