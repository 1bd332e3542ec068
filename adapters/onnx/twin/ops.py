"""Operators of ONNX in PyTorch: the registry, and those that treat every value alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["BUILDERS", "Builder", "Node", "NotPlainError", "Operator", "operator"]

Operator = Callable[..., Any]


class NotPlainError(Exception):
    """A graph that holds an operator or a setting that is not rebuilt; its text says which."""


@dataclass(frozen=True)
class Node:
    """What decides what a node computes, its inputs aside.

    Arguments:
        attributes: Its attributes.
        opset: Version of the operator set that the model states.
        outputs: How many outputs it has.
        around: What its subgraphs read from around them; given to it after its inputs.
    """

    attributes: dict[str, Any]
    opset: int
    outputs: int = 1
    around: tuple[str, ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, text as ``str``."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


Builder = Callable[[Node], Operator]
BUILDERS: dict[str, Builder] = {}
"""Operator name to what makes a function of its tensors; absent inputs are None."""


def operator(*names: str) -> Callable[[Builder], Builder]:
    """Register what builds the operators of these names."""

    def keep(build: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(names, build))
        return build

    return keep


def _plain(function: Operator) -> Builder:
    return lambda _: function


def _softsign(x: Tensor) -> Tensor:
    return x / (1 + x.abs())


def _divided(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _power(x: Tensor, exponent: Tensor) -> Tensor:
    if exponent.ndim == 0:  # a known exponent is kinder to gradients at zero
        return torch.pow(x, exponent.item()).to(x.dtype)
    return torch.pow(x, exponent).to(x.dtype)


def _sloped(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _chosen(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    place = a.device if a.ndim else b.device
    return torch.where(condition.to(place), a, b)


def _hard_swish(x: Tensor) -> Tensor:
    return x * (x / 6 + 0.5).clamp(0, 1)


def _mean(*parts: Tensor) -> Tensor:
    return reduce(torch.add, parts) / len(parts)


_EACH: dict[str, Operator] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.linalg.det,
    "Div": _divided,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": _hard_swish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Max": lambda *parts: reduce(torch.maximum, parts),
    "Mean": _mean,
    "Min": lambda *parts: reduce(torch.minimum, parts),
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": _sloped,
    "Pow": _power,
    "Reciprocal": torch.reciprocal,
    "Relu": F.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": _softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": lambda *parts: reduce(torch.add, parts),
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Where": _chosen,
    "Xor": torch.logical_xor,
}
BUILDERS.update({name: _plain(function) for name, function in _EACH.items()})


@operator("Identity")
def _identity(_: Node) -> Operator:
    return lambda x: x


@operator("Dropout")
def _dropout(node: Node) -> Operator:
    if node.outputs > 1:
        raise NotPlainError("a dropout's mask")

    def run(x: Tensor, _ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
        if training is not None and bool(training):
            raise NotPlainError("dropout in training mode")
        return x

    return run


@operator("Clip")
def _clip(node: Node) -> Operator:
    low, high = node.get("min"), node.get("max")  # attributes up to opset 10, inputs since

    def run(x: Tensor, lo: Any = low, hi: Any = high) -> Tensor:
        if lo is None and hi is None:
            return x
        number = float if x.is_floating_point() else int
        return x.clamp(None if lo is None else number(lo), None if hi is None else number(hi))

    return run


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Operator:
    return lambda x: F.leaky_relu(x, node.get("alpha", 0.01))


@operator("Elu")
def _elu(node: Node) -> Operator:
    return lambda x: F.elu(x, node.get("alpha", 1.0))


@operator("Celu")
def _celu(node: Node) -> Operator:
    return lambda x: F.celu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node) -> Operator:
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return lambda x: gamma * F.elu(x, alpha)


@operator("Swish")
def _swish(node: Node) -> Operator:
    alpha = node.get("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@operator("Shrink")
def _shrink(node: Node) -> Operator:
    bias, edge = node.get("bias", 0.0), node.get("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        inner = torch.zeros_like(x)
        return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, inner)).to(x.dtype)

    return run


@operator("Mod")
def _mod(node: Node) -> Operator:
    return torch.fmod if node.get("fmod", 0) else torch.remainder


@operator("BitShift")
def _bit_shift(node: Node) -> Operator:
    return torch.bitwise_left_shift if node.get("direction") == "LEFT" else torch.bitwise_right_shift


@operator("IsInf")
def _is_inf(node: Node) -> Operator:
    low, high = node.get("detect_negative", 1), node.get("detect_positive", 1)
    return lambda x: torch.isinf(x) & (((x < 0) & bool(low)) | ((x > 0) & bool(high)))


@operator("Softplus")
def _softplus(_: Node) -> Operator:
    return F.softplus


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Operator:
    return lambda x: F.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Operator:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


@operator("Gelu")
def _gelu(node: Node) -> Operator:
    return lambda x: F.gelu(x, approximate=node.get("approximate", "none"))


_TYPES = {
    onnx.TensorProto.BOOL: torch.bool,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
}


@operator("Cast")
def _cast(node: Node) -> Operator:
    kind = _TYPES.get(node.get("to"))
    if kind is None:
        raise NotPlainError(f"a cast to type {node.get('to')}")
    return lambda x: x.to(kind)


@operator("CastLike")
def _cast_like(_: Node) -> Operator:
    return lambda x, like: x.to(like.dtype)
