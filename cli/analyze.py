"""``ctinv analyze``: fit, sample, audit and report in one go."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    layer_option,
    memory_option,
    model_options,
    out_option,
    preset_options,
    quantiles_option,
    quiet_option,
    refine_options,
    samples_option,
    seed_option,
)
from .work import Task, explain_all

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress

__all__ = ["analyze"]


@click.command()
@model_options
@layer_option
@input_options
@out_option("ctinv-out")
@samples_option
@refine_options
@quantiles_option
@memory_option
@preset_options
@data_option()
@click.option("--no-cache", is_flag=True, help="Fit anew and keep nothing in the user's cache.")
@device_option
@seed_option
@json_option
@quiet_option
def analyze(
    layers: tuple[str, ...],
    images: Images,
    out: Path,
    samples: int,
    refine: int | None,
    memory: int | None,
    rho: float,
    quantiles: tuple[float, ...],
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    data: str | None,
    no_cache: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what layers of a denoiser cannot see.

    DIR receives result.json, arrays.npz, figure.png and report.html; with several layers each has a
    folder of its own, and with a folder as input so has each slice. Started by torchrun, all
    processes fit together and divide the slices.

    \b
    Examples:
      ctinv analyze --model model.onnx --layer conv7
      ctinv analyze -m yang -l conv1 -l conv7 -l conv13 -i slice.dcm -o out
      torchrun --nproc-per-node 2 -m ctinv.cli analyze -m yang -l conv7 -i scans -o out
    """
    spec = ModelSpec(**options)
    from ctinv.invariance.infra.distributed import joined

    with joined() as everyone, Screen(as_json, quiet, everyone.leads) as screen:
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.presets import preset as find_preset

        # Everything that can be refused is refused here, before anything long.
        check_writable(out)
        find_preset(preset, dict(overrides))
        denoiser = open_model(dataclasses.replace(spec, device=everyone.device(spec.device)))
        wanted = distinct(denoiser, layers)
        slices = read_slices(images, screen)
        known = {"intensity_found": settle_units(denoiser, spec, slices, screen)}
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")

        from ctinv import invariance

        def fit(names: Sequence[str], progress: Progress | None) -> list[invariance.Explainer]:
            return invariance.fit(
                denoiser,
                names,
                data=data,
                preset=preset,
                overrides=dict(overrides),
                seed=seed,
                cache=not no_cache,
                progress=progress,
            )

        drawing = {
            "samples": samples,
            "refine": refine,
            "rho": rho,
            "quantiles": quantiles,
            "seed": seed,
        }
        explain_all(screen, Task(images.source, slices, out, drawing, known, memory), wanted, fit)
