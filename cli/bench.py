"""``ctinv bench``: how fast samples are drawn here."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click

from .console import Screen
from .images import read_slices
from .models import ModelSpec, open_model, settle_units
from .options import (
    device_option,
    input_option,
    json_option,
    model_options,
    preset_options,
    quiet_option,
    samples_option,
    seed_option,
)

__all__ = ["bench"]


@click.command()
@model_options
@click.option("--layer", "-l", required=True, metavar="L", help="The layer's name.")
@input_option
@samples_option
@preset_options
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Timed runs.")
@device_option
@seed_option
@json_option
@quiet_option
def bench(
    layer: str,
    source: Path | None,
    samples: int,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    repeats: int,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how many samples a second are drawn, after one run to warm up.

    The fit comes from the cache, or is made first and is not timed. Give a preset with few steps,
    --set fit.steps=10, where only the speed matters: it does not depend on how well the fit went.
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        denoiser = open_model(spec)
        denoiser.resolve(layer)
        one = read_slices(source)[0]
        settle_units(denoiser, spec, [one], screen)

        from ctinv import invariance

        with screen.progress() as progress:
            explainer = invariance.fit(
                denoiser, layer, preset=preset, overrides=dict(overrides), seed=seed, progress=progress
            )
            runs = [
                explainer.explain(one, samples=samples, seed=seed, cache=False, progress=progress)
                for _ in range(repeats + 1)
            ][1:]
        seconds = [float(run.meta["timings"]["sampling"]) for run in runs]
        middle = statistics.median(seconds)
        height, width = one.shape
        found = {
            "model": denoiser.name,
            "layer": explainer.layer,
            "preset": preset,
            "device": denoiser.device,
            "size": [height, width],
            "samples": samples,
            "repeats": repeats,
            "seconds": seconds,
            "samples_per_second": samples / middle if middle else None,
            "versions": runs[0].meta["versions"],
        }
        if as_json:
            screen.result(found)
            return
        screen.line(
            f"{denoiser.name}, {explainer.layer}, preset {preset}, {height} x {width} pixels, on "
            f"{denoiser.device}: {samples} samples in {middle:.2f} s (median of {repeats}, "
            f"{min(seconds):.2f} to {max(seconds):.2f} s), {samples / max(middle, 1e-9):.1f} samples a second"
        )
