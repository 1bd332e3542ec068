"""Quantised graphs: which float tensor an integer tensor stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx

from .prune import Wanted
from .trace import Trace

__all__ = ["Quantised", "plain"]

# Where quantised operators keep the scale of what they return; the zero point follows it.
_SCALE_INPUT = {
    "QuantizeLinear": 1,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3,
    "QLinearAveragePool": 3,
    "QLinearGlobalAveragePool": 3,
    "QLinearSoftmax": 3,
    "QLinearReduceMean": 3,
    "QLinearWhere": 7,
    "QLinearConcat": 0,
}
_KEEPS_SCALE = frozenset(
    (
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "MaxPool",
        "NhwcMaxPool",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    )
)
_SUFFIX = re.compile(
    r"(_QuantizeLinear_Output|_DequantizeLinear_Output|_QuantizeLinear_Input|_quantized)(_\d+)?$"
)


def plain(tensor: str) -> str:
    """A tensor's name without what quantisers append.

    Example:
        >>> plain("/relu/Relu_output_0_quantized")
        '/relu/Relu_output_0'
    """
    return _SUFFIX.sub("", tensor)


class Quantised:
    """Scales of the integer tensors of a graph, and the float tensors that only feed them.

    Arguments:
        trace: The graph.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.scales: dict[str, tuple[str, str]] = {}
        for node in trace.nodes:
            self._read(node)
        self._finals = {value.name for value in trace.model.graph.output}

    def _read(self, node: onnx.NodeProto) -> None:
        if node.op_type in _SCALE_INPUT and len(node.input) > _SCALE_INPUT[node.op_type]:
            position = _SCALE_INPUT[node.op_type]
            zero = node.input[position + 1] if len(node.input) > position + 1 else ""
            self.scales[node.output[0]] = (node.input[position], zero)
        elif node.op_type == "DynamicQuantizeLinear" and len(node.output) == 3:
            self.scales[node.output[0]] = (node.output[1], node.output[2])
        elif node.op_type in _KEEPS_SCALE and node.input and node.input[0] in self.scales:
            for name in node.output:
                self.scales[name] = self.scales[node.input[0]]

    def wanted(self, tensor: str) -> Wanted | None:
        """How to read the float values that a tensor stands for; None where it holds integers.

        A float tensor that is only ever quantised is read as the network goes on with it.
        """
        target = tensor if tensor in self.scales else self._only_quantised(tensor)
        if not target:
            return Wanted(tensor)
        scale, zero = self.scales[target]
        shape = self._trace.shapes.get(scale)
        if shape is not None and any(size != 1 for size in shape):
            return None
        return Wanted(target, scale, zero)

    def _only_quantised(self, tensor: str) -> str:
        users = [self._trace.nodes[index] for index in self._trace.users.get(tensor, ())]
        if not users or tensor in self._finals:
            return ""
        if any(user.op_type != "QuantizeLinear" or user.input[0] != tensor for user in users):
            return ""
        return users[0].output[0] if len({tuple(user.input) for user in users}) == 1 else ""

    def clips_at_zero(self, want: Wanted) -> bool:
        """Whether the zero point is the lowest integer, so that nothing negative can be told."""
        zero = self._trace.constant(want.zero) if want.zero else None
        if zero is None or zero.size != 1 or zero.dtype.kind not in "iu":
            return False
        lowest = -(2 ** (8 * zero.dtype.itemsize - 1)) if zero.dtype.kind == "i" else 0
        return int(zero.ravel()[0]) == lowest

    def stands_for(self, tensor: str) -> bool:
        """Whether a node output is only another form of a layer that is listed anyway."""
        node = self._trace.nodes[self._trace.producer[tensor]]
        if node.op_type == "QuantizeLinear":
            return True
        return (
            node.op_type == "DequantizeLinear"
            and node.input[0] in self.scales
            and self._listed(node.input[0])
        )

    def _listed(self, integers: str) -> bool:
        source = self._trace.nodes[self._trace.producer[integers]]
        if source.op_type != "QuantizeLinear":
            return True
        return source.input[0] != self._trace.image and bool(self._only_quantised(source.input[0]))

    def forms(self, want: Wanted) -> Iterator[str]:
        """Other names of the same values: tensors and nodes that quantise and dequantise."""
        if not want.scale:
            return
        yield want.tensor
        for index in self._trace.users.get(want.tensor, ()):
            node = self._trace.nodes[index]
            if node.op_type == "DequantizeLinear":
                yield from (name for name in (node.output[0], node.name) if name)
