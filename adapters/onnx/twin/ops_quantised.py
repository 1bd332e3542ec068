"""Operators of ONNX in PyTorch that round to integers and back."""

from __future__ import annotations

from typing import Any

import onnx
import torch
from torch import Tensor

from .ops import BUILDERS, Node, NotPlainError, Operator, operator

__all__: list[str] = []

_RANGES = {
    onnx.TensorProto.UINT8: (torch.uint8, 0, 255),
    onnx.TensorProto.INT8: (torch.int8, -128, 127),
    onnx.TensorProto.INT16: (torch.int16, -(2**15), 2**15 - 1),
}
_KINDS = {dtype: (low, high) for dtype, low, high in _RANGES.values()}


def _spread(value: Tensor, x: Tensor, axis: int, block: int = 0) -> Tensor:
    """A scale or zero point along the axis of a tensor that it belongs to."""
    if value.numel() == 1 and value.ndim < 2:
        return value.reshape(())
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if value.ndim > 1:
        return value
    return value.reshape([-1 if k == axis % x.ndim else 1 for k in range(x.ndim)])


def _rounded(x: Tensor, zero: Tensor | None, kind: torch.dtype) -> Tensor:
    """The nearest integers, cut to a type's range.

    While gradients are asked for they stay floats, and the rounding passes gradients on as if it did
    not round: its own are zero wherever they are defined.
    """
    if kind not in _KINDS:
        raise NotPlainError(f"quantising to {kind}")
    low, high = _KINDS[kind]
    shift = 0.0 if zero is None else zero.to(x.dtype)
    if x.requires_grad:
        return (x + (torch.round(x) - x).detach() + shift).clamp(low, high)
    return (torch.round(x) + shift).clamp(low, high).to(kind)


@operator("QuantizeLinear")
def _quantize(node: Node) -> Operator:
    axis, block, stated = node.get("axis", 1), node.get("block_size", 0), node.get("output_dtype", 0)
    if (stated and stated not in _RANGES) or node.get("precision", 0) not in (0, onnx.TensorProto.FLOAT):
        raise NotPlainError("quantising to this type")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        kind = _RANGES[stated or onnx.TensorProto.UINT8][0] if zero is None else zero.dtype
        where = None if zero is None else _spread(zero, x, axis, block)
        return _rounded(x / _spread(scale, x, axis, block), where, kind)

    return run


@operator("DequantizeLinear")
def _dequantize(node: Node) -> Operator:
    axis, block = node.get("axis", 1), node.get("block_size", 0)
    if node.get("output_dtype", 0) not in (0, onnx.TensorProto.FLOAT):
        raise NotPlainError("values dequantised to another type")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        values = x.to(scale.dtype)
        if zero is not None:
            values = values - _spread(zero, x, axis, block).to(scale.dtype)
        return values * _spread(scale, x, axis, block)

    return run


@operator("DynamicQuantizeLinear")
def _dynamic(_: Node) -> Operator:
    def run(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = x.min().clamp(max=0), x.max().clamp(min=0)
        scale = (high - low) / 255
        zero = torch.round((0 - low / scale).clamp(0, 255)).to(torch.uint8)
        return _rounded(x / scale, zero, torch.uint8), scale, zero

    return run


def _integers(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    # Double, which holds every sum of products of eight bits.
    integers = x.double()
    return integers if zero is None else integers - _spread(zero, x, axis).double()


def _whole(x: Tensor) -> Tensor:
    return x if x.requires_grad else torch.round(x).to(torch.int32)


@operator("MatMulInteger")
def _matmul_integer(_: Node) -> Operator:
    def run(a: Tensor, b: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        return _whole(_integers(a, first, -2) @ _integers(b, second, -1))

    return run


@operator("ConvInteger")
def _conv_integer(node: Node) -> Operator:
    conv = BUILDERS["Conv"](node)

    def run(x: Tensor, w: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> Tensor:
        return _whole(torch.as_tensor(conv(_integers(x, first, 1), _integers(w, second, 0))))

    return run


@operator("QLinearConv")
def _conv(node: Node) -> Operator:
    conv = BUILDERS["Conv"](node)

    def run(x: Tensor, xs: Tensor, xz: Tensor, w: Tensor, ws: Tensor, wz: Tensor, *rest: Any) -> Tensor:
        scale, zero, bias = (*rest, None)[:3]
        sums = conv(_integers(x, xz, 1), _integers(w, wz, 0), None if bias is None else bias.double())
        each = _spread(ws, sums, 1) if ws.numel() > 1 else ws.reshape(())
        return _rounded((sums * (xs * each / scale)).float(), zero, zero.dtype)

    return run


@operator("QLinearMatMul")
def _matmul(_: Node) -> Operator:
    def run(a: Tensor, a_scale: Tensor, az: Tensor, b: Tensor, b_scale: Tensor, *rest: Tensor) -> Tensor:
        bz, scale, zero = rest
        sums = _integers(a, az, -2) @ _integers(b, bz, -1)
        first = a_scale.reshape(-1, 1) if a_scale.numel() > 1 else a_scale.reshape(())
        return _rounded((sums * (first * b_scale.squeeze() / scale)).float(), zero, zero.dtype)

    return run
