"""Operators of ONNX in PyTorch that sum: norms, reductions, products of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .ops import BUILDERS, Builder, Node, NotPlainError, Operator, operator

__all__: list[str] = []


@operator("BatchNormalization")
def _batch_norm(node: Node) -> Operator:
    if node.get("training_mode", 0) or node.outputs > 1:
        raise NotPlainError("batch normalisation in training mode")
    eps = node.get("epsilon", 1e-5)
    return lambda x, scale, bias, mean, var: F.batch_norm(x, mean, var, scale, bias, False, 0.0, eps)


@operator("InstanceNormalization")
def _instance_norm(node: Node) -> Operator:
    eps = node.get("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=eps)


@operator("LayerNormalization")
def _layer_norm(node: Node) -> Operator:
    if node.outputs > 1:
        raise NotPlainError("the mean or deviation of a layer normalisation")
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        shape = tuple(x.shape[axis:])
        if tuple(scale.shape) == shape and (bias is None or tuple(bias.shape) == shape):
            return F.layer_norm(x, shape, scale, bias, eps)
        normed = F.layer_norm(x, shape, eps=eps) * scale
        return normed if bias is None else normed + bias

    return run


@operator("RMSNormalization")
def _rms_norm(node: Node) -> Operator:
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor) -> Tensor:
        axes = tuple(range(axis % x.ndim, x.ndim))
        return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + eps) * scale

    return run


@operator("LpNormalization")
def _lp_norm(node: Node) -> Operator:
    axis, power = node.get("axis", -1), node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, power, dim=axis, keepdim=True)
        return torch.where(size == 0, torch.zeros_like(x), x / torch.where(size == 0, 1.0, size))

    return run


@operator("MeanVarianceNormalization")
def _standardised(node: Node) -> Operator:
    axes = tuple(node.get("axes", [0, 2, 3]))

    def run(x: Tensor) -> Tensor:
        mean = x.mean(axes, keepdim=True)
        return (x - mean) / ((x.square().mean(axes, keepdim=True) - mean.square()).sqrt() + 1e-9)

    return run


@operator("LRN")
def _local_response(node: Node) -> Operator:
    size, alpha = node.get("size"), node.get("alpha", 1e-4)
    beta, bias = node.get("beta", 0.75), node.get("bias", 1.0)

    def run(x: Tensor) -> Tensor:
        before = (size - 1) // 2
        squares = F.pad(x.square(), [0, 0] * (x.ndim - 2) + [before, size - 1 - before])
        return x / (bias + alpha / size * squares.unfold(1, size, 1).sum(-1)) ** beta

    return run


@operator("GroupNormalization")
def _group_norm(node: Node) -> Operator:
    groups, eps = node.get("num_groups"), node.get("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        each = x.shape[1] // scale.shape[0]  # up to opset 20 there is one value per group
        return F.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), eps)

    return run


@operator("Softmax")
def _softmax(node: Node) -> Operator:
    return _soft(node, torch.softmax)


@operator("LogSoftmax")
def _log_softmax(node: Node) -> Operator:
    return _soft(node, torch.log_softmax)


def _soft(node: Node, function: Callable[..., Tensor]) -> Operator:
    if node.opset >= 13:
        return lambda x: function(x, dim=node.get("axis", -1))

    def run(x: Tensor) -> Tensor:  # over all axes from the one named
        axis = node.get("axis", 1) % x.ndim
        return function(x.flatten(axis), dim=-1).reshape(x.shape)

    return run


def _product_of_matrices(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float16:  # rounded otherwise from one runtime to the next
        raise NotPlainError("a product in half precision")
    return torch.matmul(a, b)


BUILDERS["MatMul"] = lambda _: _product_of_matrices


@operator("Gemm")
def _gemm(node: Node) -> Operator:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    first, second = node.get("transA", 0), node.get("transB", 0)

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.T if first else a, b.T if second else b
        if c is not None and alpha == beta == 1.0:
            return torch.addmm(c, a, b)
        product = alpha * (a @ b)
        return product if c is None else product + beta * c

    return run


@operator("Einsum")
def _einsum(node: Node) -> Operator:
    return lambda *parts: torch.einsum(node.get("equation"), *parts)


def _norm(power: float) -> Operator:
    def run(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
        return torch.linalg.vector_norm(x, power, dim=dim, keepdim=keepdim)

    return run


def _product(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    for axis in sorted(dim, reverse=True):
        x = x.prod(dim=axis, keepdim=keepdim)
    return x


def _squares(x: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return x.square().sum(dim=dim, keepdim=keepdim)


def _reduced(function: Callable[..., Tensor]) -> Builder:
    def build(node: Node) -> Operator:
        keep, none = bool(node.get("keepdims", 1)), bool(node.get("noop_with_empty_axes", 0))
        stated = node.get("axes")

        def run(x: Tensor, axes: Any = stated) -> Tensor:
            given = [] if axes is None else [int(axis) % x.ndim for axis in axes]
            if not given and none:
                return x
            return function(x, dim=tuple(given or range(x.ndim)), keepdim=keep)

        return run

    return build


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "ReduceLogSum": lambda x, dim, keepdim: torch.log(torch.sum(x, dim=dim, keepdim=keepdim)),
    "ReduceLogSumExp": torch.logsumexp,
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceProd": _product,
    "ReduceSum": torch.sum,
    "ReduceSumSquare": _squares,
}
BUILDERS.update({name: _reduced(function) for name, function in _REDUCTIONS.items()})
