"""``ctinv layers``: where a model can be read."""

from __future__ import annotations

from typing import Any

import click

from .console import Screen
from .models import ModelSpec, open_model
from .options import device_option, json_option, model_options, quiet_option

__all__ = ["layers"]


@click.command()
@model_options
@device_option
@json_option
@quiet_option
def layers(as_json: bool, quiet: bool, **options: Any) -> None:
    """List the layers of a model, in execution order.

    \b
    Example:
      ctinv layers --model model.onnx
    """
    with Screen(as_json, quiet) as screen:
        denoiser = open_model(ModelSpec(**options))
        listed = denoiser.layers
        if as_json:
            screen.result([_entry(layer) for layer in listed])
            return
        for notice in denoiser.notices:
            screen.note(f"note: {notice}")
        rows = [
            (layer.name, layer.op, " × ".join(map(str, layer.shape)) or "unknown", _remark(layer))
            for layer in listed
        ]
        title = f"{denoiser.name} ({denoiser.kind}), {len(listed)} layers"
        screen.table(title, ("Layer", "Operator", "Shape", "Remarks"), rows)


def _entry(layer: Any) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "shape": list(layer.shape),
        "aliases": list(layer.aliases),
        "tappable": layer.tappable,
        "note": layer.note,
    }


def _remark(layer: Any) -> str:
    parts = [] if layer.tappable else ["cannot be read"]
    if layer.note:
        parts.append(layer.note)
    if layer.aliases:
        parts.append(f"also {', '.join(layer.aliases)}")
    return "; ".join(parts)
