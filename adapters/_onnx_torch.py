"""Plain ONNX graphs rebuilt as PyTorch modules, for gradients and for bit-equal arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from ._onnx_prune import Wanted, prefix
from ._onnx_trace import Trace

__all__ = ["GraphModule", "NotPlainError", "rebuilt"]

_Operator = Callable[..., Tensor]


class NotPlainError(Exception):
    """A graph that holds an operator or a setting that is not rebuilt; its text says which."""


class GraphModule(nn.Module):
    """A graph of convolutions, activations and arithmetic as a module.

    Arguments:
        model: The graph; its first output is what the module returns.
        image: Name of its image input.

    Raises:
        NotPlainError: The graph needs more than is rebuilt here.
    """

    def __init__(self, model: onnx.ModelProto, image: str) -> None:
        super().__init__()
        graph = model.graph
        self._image, self._output = image, graph.output[0].name
        self._stored: dict[str, str] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        self._steps: list[tuple[_Operator, list[str], str]] = []
        known = {image, *self._stored}
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                self._keep(node.output[0], attributes["value"])
            elif (build := _BUILDERS.get(node.op_type)) and node.domain in ("", "ai.onnx"):
                self._steps.append((build(attributes), list(node.input), node.output[0]))
            else:
                raise NotPlainError(f"operator {node.op_type}")
            known.update(node.output)
        missing = {name for _, inputs, _ in self._steps for name in inputs if name} - known
        if missing or self._output not in known:
            raise NotPlainError(f"tensor {next(iter(missing), self._output)} from outside")

    def _keep(self, name: str, tensor: onnx.TensorProto) -> None:
        self._stored[name] = f"stored{len(self._stored)}"
        value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
        self.register_buffer(self._stored[name], value)

    def forward(self, x: Tensor) -> Tensor:
        """The image (N, C, H, W) in model units to the graph's first output."""
        values: dict[str, Any] = {name: getattr(self, stored) for name, stored in self._stored.items()}
        values[self._image] = x
        for operator, inputs, output in self._steps:
            values[output] = operator(*(values[name] if name else None for name in inputs))
        result: Tensor = values[self._output]
        return result


class _Observed(nn.Module):
    """A part of a network as the layer ``phi`` of a network that returns its input."""

    def __init__(self, phi: nn.Module) -> None:
        super().__init__()
        self.phi = phi

    def forward(self, x: Tensor) -> Tensor:
        self.phi(x)
        return x


def rebuilt(trace: Trace, want: Wanted, image: str) -> nn.Module:
    """What one tensor of a graph needs, as the layer ``phi`` of a module.

    Raises:
        NotPlainError: The graph needs more than is rebuilt here, or the tensor is quantised.
    """
    if want.scale:
        raise NotPlainError("a quantised tensor")
    return _Observed(GraphModule(prefix(trace, [want]), image)).eval()


def _symmetric(pads: Sequence[int]) -> tuple[int, ...]:
    half = len(pads) // 2
    if list(pads[:half]) != list(pads[half:]):
        raise NotPlainError(f"uneven padding {list(pads)}")
    return tuple(pads[:half])


def _conv(a: dict[str, Any]) -> _Operator:
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise NotPlainError("automatic padding")
    padding = _symmetric(a.get("pads", [0, 0, 0, 0]))
    stride, dilation = tuple(a.get("strides", [1, 1])), tuple(a.get("dilations", [1, 1]))
    if not len(padding) == len(stride) == len(dilation) == 2:
        raise NotPlainError("a convolution that is not two-dimensional")
    groups = a.get("group", 1)
    return lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, dilation, groups)


def _batch_norm(a: dict[str, Any]) -> _Operator:
    if a.get("training_mode", 0):
        raise NotPlainError("batch normalisation in training mode")
    eps = a.get("epsilon", 1e-5)
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, False, 0.0, eps)


def _clip(a: dict[str, Any]) -> _Operator:
    low, high = a.get("min"), a.get("max")  # attributes up to opset 10, inputs since
    return lambda x, lo=low, hi=high: x.clamp(
        None if lo is None else float(lo), None if hi is None else float(hi)
    )


def _concat(a: dict[str, Any]) -> _Operator:
    return lambda *parts: torch.cat(parts, a["axis"])


def _plain(function: _Operator) -> Callable[[dict[str, Any]], _Operator]:
    return lambda _: function


_BUILDERS: dict[str, Callable[[dict[str, Any]], _Operator]] = {
    "Add": _plain(torch.add),
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Identity": _plain(lambda x: x),
    "LeakyRelu": lambda a: lambda x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "PRelu": _plain(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "Relu": _plain(F.relu),
    "Sigmoid": _plain(torch.sigmoid),
    "Sub": _plain(torch.sub),
    "Sum": _plain(lambda *parts: reduce(torch.add, parts)),
    "Tanh": _plain(torch.tanh),
}
