"""``ctinv analyze``: fit, sample, audit and report in one go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .app import CasesFailedError
from .console import Screen
from .images import Images, find_slices
from .models import ModelSpec, distinct_in_each, open_model, settle_units, some_slices
from .options import (
    data_option,
    device_option,
    format_options,
    input_options,
    json_option,
    layers_option,
    memory_option,
    models_options,
    out_option,
    preset_options,
    quantiles_option,
    quiet_option,
    refine_options,
    run_options,
    samples_option,
    seed_option,
)
from .work import Subject, Task, Written, explain_all

if TYPE_CHECKING:
    from ctinv.adapters import Denoiser
    from ctinv.adapters._types import Progress
    from ctinv.invariance import Explainer
    from ctinv.invariance.runs.cases import Shard

    from .work import Maker

__all__ = ["analyze"]


@click.command()
@models_options
@layers_option
@input_options
@out_option("ctinv-out")
@samples_option
@refine_options
@quantiles_option
@memory_option
@preset_options
@data_option()
@click.option("--no-cache", is_flag=True, help="Fit anew and keep nothing in the user's cache.")
@format_options
@run_options
@device_option
@seed_option
@json_option
@quiet_option
def analyze(
    models: tuple[str, ...],
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
    formats: tuple[str, ...],
    deidentify: bool,
    shard: Shard,
    fail_fast: bool,
    restart: bool,
    seed: int,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what layers of a denoiser, or of several, cannot see.

    DIR receives result.json, arrays.npz, figure.png and report.html; with several models each has a
    folder of its own in it, with a folder as input so has each slice, and with several layers each
    layer: DIR/MODEL/SLICE/LAYER. Then runs.csv has one row for each of these cases. What is finished
    in DIR is not analysed again; a case that fails leaves error.json, and the exit code is 3. Started
    by torchrun, all processes fit together and divide the cases.

    \b
    Examples:
      ctinv analyze --model model.onnx --layer conv7
      ctinv analyze -m yang -l conv1 -l conv7 -l conv13 -i slice.dcm -o out
      ctinv analyze -m chen -m yang -l 'conv*' -i scans -o out --shard 1/4
      torchrun --nproc-per-node 2 -m ctinv.cli analyze -m yang -l conv7 -i scans -o out
    """
    from ctinv.invariance.infra.distributed import joined

    with joined() as everyone, Screen(as_json, quiet, everyone.leads) as screen:
        from ctinv.invariance.infra.files import check_writable
        from ctinv.invariance.presets import preset as find_preset
        from ctinv.invariance.runs.keys import FitIdentity

        # Everything that can be refused is refused here, before anything long.
        check_writable(out)
        chosen = find_preset(preset, dict(overrides))
        options["device"] = everyone.device(options["device"])
        specs = [ModelSpec(model, **options) for model in dict.fromkeys(models)]
        denoisers = [open_model(spec) for spec in specs]
        wanted = distinct_in_each(denoisers, layers, screen)
        slices = find_slices(images, screen)
        written = Written(formats, deidentify).checked(slices, screen)
        some = some_slices(slices)
        units = [settle_units(d, s, some, screen) for d, s in zip(denoisers, specs, strict=True)]
        for notice in dict.fromkeys(notice for denoiser in denoisers for notice in denoiser.notices):
            screen.note(f"note: {notice}")
        fitting = {"data": data, "preset": preset, "overrides": dict(overrides), "seed": seed}
        fitting["cache"] = not no_cache
        identity = FitIdentity(chosen, seed, _data_key(data), everyone.size)
        drawing = {"samples": samples, "refine": refine, "rho": rho, "quantiles": quantiles, "seed": seed}
        subjects = [
            Subject(denoiser, names, {"intensity_found": found}, _maker(denoiser, fitting), identity)
            for denoiser, names, found in zip(denoisers, wanted, units, strict=True)
        ]
        task = Task(images.source, slices, out, subjects, drawing, shard, memory, fail_fast, restart, written)
        failed = explain_all(screen, task)
    if failed:
        raise CasesFailedError(failed, task.count, out)


def _maker(denoiser: Denoiser, fitting: dict[str, Any]) -> Maker:
    """Fits layers of one model."""

    def fit(names: Sequence[str], progress: Progress | None) -> Sequence[Explainer]:
        from ctinv import invariance

        return invariance.fit(denoiser, names, **fitting, progress=progress)

    return fit


def _data_key(data: str | None) -> str:
    """What the fit rests on, before it is read."""
    if data is None or data == "phantom":
        return "phantom"
    from ctinv.invariance.data.pairing import sources_of
    from ctinv.invariance.runs.keys import files_key

    sources = sources_of(data)
    return files_key(*(p for p in (sources.folder, sources.low, sources.high) if p is not None))
