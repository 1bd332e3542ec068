"""``ctinv analyze``: fit, sample, audit and report in one go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .app import CasesFailedError
from .cluster import explain_on_cluster
from .console import Screen
from .extras import extra_options
from .images import Images
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
from .question import Question, prepare
from .work import explain_all

if TYPE_CHECKING:
    from ctinv.invariance.runs.cases import Shard

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
@extra_options
@format_options
@run_options
@click.option("--scheduler", metavar="ADDRESS", help="Divide the cases among this Dask scheduler's workers.")
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
    scheduler: str | None,
    fail_fast: bool,
    restart: bool,
    report: bool,
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
      ctinv analyze -m yang -l conv7 -i slice.dcm --swap another.dcm --attack 20
      ctinv analyze -m chen -m yang -l 'conv*' -i scans -o out --shard 1/4
      torchrun --nproc-per-node 2 -m ctinv.cli analyze -m yang -l conv7 -i scans -o out
    """
    from ctinv.invariance.infra.distributed import joined

    with joined() as everyone, Screen(as_json, quiet, everyone.leads) as screen:
        from ctinv.invariance.infra.files import check_writable

        # Everything that can be refused is refused here, before anything long.
        check_writable(out)
        asked = options.pop("swap"), options.pop("attack")
        options["device"] = everyone.device(options["device"])
        fitting: dict[str, Any] = {"data": data, "preset": preset, "overrides": dict(overrides), "seed": seed}
        fitting["cache"] = not no_cache
        drawing = {"samples": samples, "refine": refine, "rho": rho, "quantiles": quantiles, "seed": seed}
        how: dict[str, Any] = {"fail_fast": fail_fast, "restart": restart}
        named, kept = tuple(dict.fromkeys(models)), (memory, formats, deidentify)
        question = Question(named, layers, images, fitting, drawing, options, *kept, *asked, report=report)
        task = prepare(question, out, shard, screen, processes=everyone.size, **how)
        if scheduler is None:
            failed = explain_all(screen, task)
        else:
            failed = explain_on_cluster(screen, task, question, scheduler)
    if failed:
        raise CasesFailedError(failed, task.count, out)
