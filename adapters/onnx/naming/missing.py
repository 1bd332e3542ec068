"""Why a name of an ONNX graph, or of the network behind it, is no layer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx
from ctinv.adapters._types import Layer
from ctinv.adapters.errors import LayerError
from ctinv.adapters.onnx.graph.trace import Trace

from .table import FLOATS

__all__ = ["no_layer", "why_not"]

_NUMBERED = re.compile(r"(?P<parent>.*\.)?(?P<number>\d+)")


def why_not(name: str, trace: Trace) -> str:
    """Why something that is in the graph under this name cannot be read; empty if nothing is."""
    if name in trace.stored:
        return "it is a weight, the same for every image"
    if name == trace.image:
        return "it is the image itself; ask for @input"
    if any(name == value.name for value in trace.model.graph.input):
        return "it is an input besides the image"
    depends = trace.from_image.intersection
    called = [node for node in trace.nodes if name and node.name == name and depends(node.output)]
    if len(called) > 1 and name not in trace.producer:
        tensors = ", ".join(repr(node.output[0]) for node in called[:6])
        return f"{len(called)} nodes bear that name; ask for one of their tensors, {tensors}"
    for node in trace.nodes:
        if name != node.name and name not in node.output:
            continue
        outputs = [name] if name in node.output else [output for output in node.output if output]
        if not any(output in trace.from_image for output in outputs):
            return "it does not depend on the image"
        kinds = {trace.types.get(output, 0) for output in outputs}
        if kinds and not kinds & {*FLOATS, 0}:
            names = ", ".join(onnx.TensorProto.DataType.Name(kind).lower() for kind in sorted(kinds))
            return f"it holds {names} values, not a representation"
    return ""


def _vanished(name: str, layers: Sequence[Layer]) -> tuple[str, str]:
    """For a numbered module between others of the same parent: its likely fate, and who is before."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        return "", ""
    siblings: dict[int, str] = {}
    for layer in layers:
        other = _NUMBERED.match(layer.name)
        if other is not None and other["parent"] == match["parent"] and layer.tappable:
            siblings[int(other["number"])] = layer.name
    before = [number for number in siblings if number < int(match["number"])]
    after = [number for number in siblings if number > int(match["number"])]
    if not before or not after:
        return "", ""
    previous = siblings[max(before)]
    return (
        f"it has no node in this graph, as Dropout, Identity and folded batch norms have none; the output "
        f"there is that of {previous!r}",
        previous,
    )


def no_layer(name: str, reason: str, layers: Sequence[Layer], matches: Sequence[str] = ()) -> LayerError:
    """The error for a name that leads to no layer."""
    fate, previous = _vanished(name, layers)
    if fate:
        return LayerError(f"layer {name!r} cannot be read: {fate}", name, [previous, *matches])
    if matches:
        hint = "exporters leave out Dropout and Identity, whose output is that of the layer before"
        return LayerError(f"{reason}; {hint}", name, matches)
    near = [layer.name for layer in layers if layer.tappable][:4]
    return LayerError(
        f"layer {name!r} cannot be read: {reason}; layers are: {', '.join(near)}...", name, near
    )
