"""``ctinv compare-models``: whether two models are the same network, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from .console import Screen
from .images import Images, read_slices
from .models import ModelSpec, open_model, settle_units
from .options import device_option, input_options, json_option, quiet_option

if TYPE_CHECKING:
    from ctinv.adapters.compare import Difference

__all__ = ["compare"]


@click.command("compare-models")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@input_options
@click.option("--intensity", default="auto", show_default=True, metavar="SPEC", help="Units of both models.")
@device_option
@json_option
@quiet_option
def compare(
    first: str, second: str, images: Images, intensity: str, device: str, as_json: bool, quiet: bool
) -> None:
    """Compare the layers of two models, such as a network and its ONNX export, on one slice.

    To set analyses against each other, see compare.

    \b
    Example:
      ctinv compare-models yang model.onnx
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.adapters.compare import compare as differences

        specs = [ModelSpec(model, intensity=intensity, device=device) for model in (first, second)]
        models = [open_model(spec) for spec in specs]
        one = read_slices(images, screen)[0]
        for model, spec in zip(models, specs, strict=True):
            settle_units(model, spec, [one], screen)
        rows = differences(models[0], models[1], one.hu[None, None])
        if as_json:
            screen.result([_entry(row) for row in rows])
            return
        heads = ("Layer of A", "Layer of B", "Largest difference", "Mean", "RMS of A", "Remarks")
        screen.table(
            f"A: {first}   B: {second}",
            heads,
            [(r.layer, r.other, _number(r.largest), _number(r.mean), _number(r.scale), r.note) for r in rows],
        )


def _entry(row: Difference) -> dict[str, Any]:
    numbers = {"largest": row.largest, "mean": row.mean, "scale": row.scale}
    return {
        "layer": row.layer,
        "other": row.other,
        **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
        "note": row.note,
    }


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""
