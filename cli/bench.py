"""``ctinv bench``: how fast samples are drawn here, and beside what."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, open_model, settle_units
from .options import (
    device_option,
    input_options,
    json_option,
    model_options,
    out_option,
    preset_options,
    quiet_option,
    samples_option,
    seed_option,
)

if TYPE_CHECKING:
    from ctinv.invariance.presets import Precision

__all__ = ["bench"]


@click.group()
def bench() -> None:
    """Measure how fast samples are drawn.

    \b
    Examples:
      ctinv bench sampling --preset paper2024 --device cuda --json
      ctinv bench suite --out bench
      ctinv bench analyze --model model.onnx --layer conv7
    """


def _device(name: str) -> str:
    if name == "auto":
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"
    from ctinv.adapters.errors import CtinvError

    if not name.startswith(("cpu", "cuda")):
        raise CtinvError(f"{name!r} is no device; give auto, cpu, cuda or cuda:N")
    return name


@bench.command()
@preset_options
@click.option(
    "--samples", "-n", default=50, show_default=True, type=click.IntRange(min=2), help="Draws a round."
)
@click.option(
    "--loop", default=3, show_default=True, type=click.IntRange(min=1), help="The same of the published loop."
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Timed rounds.")
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the engine's decoder.",
)
@device_option
@json_option
@quiet_option
def sampling(
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    samples: int,
    loop: int,
    rounds: int,
    precision: Precision,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Samples a second of a preset, in turns with the published loop on the same weights.

    The published loop draws one sample at a time, embeds anew for each, computes spectral
    normalisation again and enlarges before it convolves. Both sides' images are compared.

    \b
    Example:
      ctinv bench sampling --preset tiny
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.presets import preset as find_preset

        chosen = find_preset(preset, dict(overrides))
        where = _device(device)
        from ctinv.invariance.bench.sampling import bench_sampling

        with screen.progress() as progress:
            measured = bench_sampling(
                chosen,
                device=where,
                samples=samples,
                loop=loop,
                rounds=rounds,
                precision=precision,
                progress=progress,
            )
        if as_json:
            screen.result(measured)
            return
        screen.line(
            f"preset {preset} on {measured['machine']['name']} ({where}): {measured['samples_per_s']:.4g} "
            f"samples a second, {measured['ratio_to_published_loop']:.1f} times the published loop's "
            f"{measured['published_samples_per_s']:.4g}; relative difference of the images "
            f"{measured['relative_error']:.1e}; {100 * measured['share_of_matmul_rate']:.0f} % of the "
            f"measured matrix rate; 250 samples of 512 x 512 pixels in {measured['seconds_per_slice']:.0f} s"
        )


@bench.command()
@out_option("ctinv-bench")
@click.option("--preset", "presets", multiple=True, metavar="NAME", help="Only these presets; repeatable.")
@click.option("--no-commands", is_flag=True, help="Leave the command line's own times out.")
@device_option
@json_option
@quiet_option
def suite(
    out: Path, presets: tuple[str, ...], no_commands: bool, device: str, as_json: bool, quiet: bool
) -> None:
    """Everything: presets, the flow beside other libraries, start-up, analyses, peak memory.

    DIR receives bench.json, bench.md and bench.png. Libraries to compare with come with
    pip install 'ctinv[bench]'; those that are not installed are listed as such.

    \b
    Example:
      ctinv bench suite --preset tiny --no-commands
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.presets import preset as find_preset

        check_writable(out)
        names = presets or ("tiny", "small", "paper2024")
        for name in names:
            find_preset(name)
        where = _device(device)
        from ctinv.invariance.bench.suite import bench_suite, markdown

        with screen.progress() as progress:
            measured = bench_suite(
                out,
                presets=names,
                devices=(where,),
                commands=None if no_commands else __package__,
                progress=progress,
            )
        if as_json:
            screen.result(measured)
            return
        screen.line(markdown(measured))
        screen.line(f"written to {out}: bench.json, bench.md, bench.png")


@bench.command("analyze")
@model_options
@click.option("--layer", "-l", required=True, metavar="L", help="The layer's name.")
@input_options
@samples_option
@preset_options
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Timed runs.")
@device_option
@seed_option
@json_option
@quiet_option
def analyze(
    layer: str,
    images: Images,
    samples: int,
    preset: str,
    overrides: tuple[tuple[str, str], ...],
    repeats: int,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Samples a second of one model's layer and slice, after one run to warm up.

    The fit comes from the cache, or is made first and is not timed. Give a preset with few steps,
    --set fit.steps=10, where only the speed matters: it does not depend on how well the fit went.

    \b
    Example:
      ctinv bench analyze -m yang -l conv7 --set fit.steps=10
    """
    spec = ModelSpec(**options)
    with Screen(as_json, quiet) as screen:
        denoiser = open_model(spec)
        denoiser.resolve(layer)
        one = read_slices(images, screen)[0]
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
        seconds = [run.meta.timings.sampling or 0.0 for run in runs]
        middle = statistics.median(seconds)
        height, width = one.shape
        measured = {
            "model": denoiser.name,
            "layer": explainer.layer,
            "preset": preset,
            "device": denoiser.device,
            "size": [height, width],
            "samples": samples,
            "repeats": repeats,
            "seconds": seconds,
            "samples_per_second": samples / middle if middle else None,
            "versions": dict(runs[0].meta.versions),
        }
        if as_json:
            screen.result(measured)
            return
        screen.line(
            f"{denoiser.name}, {explainer.layer}, preset {preset}, {height} x {width} pixels, on "
            f"{denoiser.device}: {samples} samples in {middle:.2f} s (median of {repeats}, "
            f"{min(seconds):.2f} to {max(seconds):.2f} s), {samples / max(middle, 1e-9):.1f} samples a second"
        )
