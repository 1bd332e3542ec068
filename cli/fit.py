"""``ctinv fit`` and ``ctinv sample``: the two halves of analyze, for fits worth keeping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import Progress, Screen
from .images import read_slices
from .models import ModelSpec, open_model, settle_units
from .options import (
    data_option,
    device_option,
    input_option,
    json_option,
    model_options,
    out_option,
    preset_options,
    quiet_option,
    samples_option,
    seed_option,
    series_option,
)
from .results import division
from .work import Task, explain_all

__all__ = ["fit", "sample"]


@click.command()
@model_options
@click.option("--layer", "-l", required=True, metavar="L", help="The layer's name.")
@out_option("ctinv-explainer")
@preset_options
@data_option
@device_option
@seed_option
@json_option
@quiet_option
def fit(
    layer: str,
    out: Path,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: Path | None,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Fit one layer of a denoiser and keep the fit in DIR, for ctinv sample.

    \b
    Example:
      ctinv fit --model model.onnx --layer conv7 --data scans --out fitted
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.files import check_writable
        from ctinv.invariance.presets import preset as find_preset

        check_writable(out)
        find_preset(preset, dict(overrides))
        denoiser = open_model(spec)
        denoiser.resolve(layer)
        settle_units(denoiser, spec, [], screen)
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")

        from ctinv import invariance

        with screen.progress() as progress:
            explainer = invariance.fit(
                denoiser,
                layer,
                data=data,
                preset=preset,
                overrides=dict(overrides),
                seed=seed,
                progress=progress,
            )
        if explainer.info.get("split"):
            screen.note(division(explainer.info["split"]))
        explainer.save(out)
        if as_json:
            screen.result({"folder": str(out), "layer": explainer.layer, "fit": explainer.info})
        screen.line(f"written to {out}")


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
@input_option
@series_option
@out_option("ctinv-out")
@samples_option
@device_option
@seed_option
@json_option
@quiet_option
def sample(
    fitted: Path,
    source: Path | None,
    series: str | None,
    out: Path,
    samples: int,
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
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.files import check_writable

        check_writable(out)
        denoiser = open_model(spec)
        slices = read_slices(source, series)
        known = {"intensity_found": settle_units(denoiser, spec, slices, screen)}

        from ctinv import invariance

        explainer = invariance.Explainer.load(fitted, denoiser)

        def ready(layer: str, progress: Progress | None) -> invariance.Explainer:
            return explainer

        explain_all(screen, Task(source, slices, out, samples, seed, known), [explainer.layer], ready)
