"""Operators of ONNX in PyTorch that look values up, sort or accumulate them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .ops import _TYPES, Node, NotPlainError, Operator, operator

__all__: list[str] = []

_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax"}


def _counted(index: Tensor, size: int) -> Tensor:
    """Places counted from the start."""
    return torch.where(index < 0, index + size, index).to(torch.int64)


def _along(axis: int, rank: int) -> list[int]:
    """The shape of a row of numbers along one axis of many."""
    return [-1 if k == axis % rank else 1 for k in range(rank)]


@operator("GatherElements")
def _gather_elements(node: Node) -> Operator:
    axis = node.get("axis", 0)
    return lambda x, index: x.gather(axis, _counted(index, x.shape[axis]).to(x.device))


@operator("GatherND")
def _gather_nd(node: Node) -> Operator:
    batch = node.get("batch_dims", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        places = index.to(x.device).unbind(-1)
        own = [
            torch.arange(size, device=x.device).reshape(_along(axis, index.ndim - 1))
            for axis, size in enumerate(x.shape[:batch])
        ]
        return x[(*own, *places)]

    return run


@operator("Scatter", "ScatterElements")
def _scatter_elements(node: Node) -> Operator:
    axis, reduction = node.get("axis", 0), node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
        places, values = _counted(index, x.shape[axis]).to(x.device), values.to(x.device)
        if reduction == "none":
            return x.scatter(axis, places, values)
        return x.scatter_reduce(axis, places, values, _REDUCTIONS[reduction])

    return run


@operator("ScatterND")
def _scatter_nd(node: Node) -> Operator:
    reduction = node.get("reduction", "none")

    def run(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
        places, values = tuple(index.to(x.device).unbind(-1)), values.to(x.device)
        if reduction in ("none", "add"):
            return torch.index_put(x, places, values, accumulate=reduction == "add")
        strides = x.contiguous().stride()  # one number for each place of the values
        pairs = zip(places, x.shape, strides, strict=False)
        first = torch.stack([_counted(place, size) * step for place, size, step in pairs]).sum(0)
        tail = torch.arange(x.shape[len(places) :].numel(), device=x.device)
        where = (first[..., None] + tail).reshape(-1)
        scattered = x.reshape(-1).scatter_reduce(0, where, values.reshape(-1), _REDUCTIONS[reduction])
        return scattered.reshape(x.shape)

    return run


@operator("TopK")
def _top_k(node: Node) -> Operator:
    axis, largest, stated = node.get("axis", -1), bool(node.get("largest", 1)), node.get("k")

    def run(x: Tensor, k: Any = stated) -> tuple[Tensor, Tensor]:
        # Of equal values the first comes first, as a stable sort has it.
        ordered = torch.sort(x, dim=axis, descending=largest, stable=True)
        return ordered.values.narrow(axis, 0, int(k)), ordered.indices.narrow(axis, 0, int(k))

    return run


@operator("CumSum")
def _cumulative_sum(node: Node) -> Operator:
    return _cumulative(node, torch.cumsum, 0)


@operator("CumProd")
def _cumulative_product(node: Node) -> Operator:
    return _cumulative(node, torch.cumprod, 1)


def _cumulative(node: Node, function: Any, first: int) -> Operator:
    exclusive, reverse = node.get("exclusive", 0), node.get("reverse", 0)

    def run(x: Tensor, axis: Tensor) -> Tensor:
        k = int(axis)
        x = x.flip(k) if reverse else x
        running = function(x, k).to(x.dtype)
        if exclusive:
            start = torch.full_like(x.narrow(k, 0, 1), first)
            running = torch.cat([start, running.narrow(k, 0, x.shape[k] - 1)], k)
        return running.flip(k) if reverse else running

    return run


@operator("ArgMax")
def _arg_max(node: Node) -> Operator:
    return _extreme(node, torch.argmax)


@operator("ArgMin")
def _arg_min(node: Node) -> Operator:
    return _extreme(node, torch.argmin)


def _extreme(node: Node, function: Any) -> Operator:
    axis, keep, last = node.get("axis", 0), bool(node.get("keepdims", 1)), node.get("select_last_index", 0)

    def run(x: Tensor) -> Tensor:
        if last:
            return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)
        return torch.as_tensor(function(x, axis, keep))

    return run


@operator("Hardmax")
def _hardmax(node: Node) -> Operator:
    def run(x: Tensor) -> Tensor:
        if node.opset >= 13:
            axis = node.get("axis", -1)
            return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)
        flat = x.flatten(node.get("axis", 1) % x.ndim)
        return torch.zeros_like(flat).scatter(-1, flat.argmax(-1, keepdim=True), 1.0).reshape(x.shape)

    return run


@operator("Trilu")
def _triangle(node: Node) -> Operator:
    function = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=None: function(x, 0 if k is None else int(k))


@operator("EyeLike")
def _eye_like(node: Node) -> Operator:
    kind, offset = node.get("dtype"), node.get("k", 0)
    if kind is not None and kind not in _TYPES:
        raise NotPlainError(f"an identity of type {kind}")

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=_TYPES.get(kind, x.dtype), device=x.device)
        return ones.triu(offset).tril(offset)

    return run


@operator("OneHot")
def _one_hot(node: Node) -> Operator:
    axis = node.get("axis", -1)

    def run(index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        size = int(depth)
        places = torch.arange(size).reshape(_along(axis, index.ndim + 1))
        inside = _counted(index, size).unsqueeze(axis)
        return torch.where(inside == places.to(index.device), values[1], values[0])

    return run


@operator("NonZero")
def _non_zero(_: Node) -> Operator:
    return lambda x: x.nonzero().T.contiguous()


@operator("Compress")
def _compress(node: Node) -> Operator:
    axis = node.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        kept = condition.nonzero().reshape(-1).to(x.device)
        return x.reshape(-1)[kept] if axis is None else x.index_select(axis, kept)

    return run


@operator("ReverseSequence")
def _reverse_sequence(node: Node) -> Operator:
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        parts = []
        for row, length in zip(x.unbind(batch), lengths.tolist(), strict=True):
            axis = time - (batch < time)
            kept, rest = row.narrow(axis, 0, length), row.narrow(axis, length, row.shape[axis] - length)
            parts.append(torch.cat([kept.flip(axis), rest], axis))
        return torch.stack(parts, batch)

    return run


@operator("TensorScatter")
def _tensor_scatter(node: Node) -> Operator:
    axis, circular = node.get("axis", -2), node.get("mode", "linear") == "circular"

    def run(past: Tensor, update: Tensor, start: Tensor | None = None) -> Tensor:
        present, place = past.clone(), axis % past.ndim
        for row in range(past.shape[0]):
            first = 0 if start is None else int(start[row])
            where = torch.arange(first, first + update.shape[place])
            where = where % past.shape[place] if circular else where
            present[row].index_copy_(place - 1, where.to(past.device), update[row])
        return present

    return run


@operator("CenterCropPad")
def _center(node: Node) -> Operator:
    stated = node.get("axes")

    def run(x: Tensor, shape: Tensor) -> Tensor:
        for axis, size in zip(stated or range(x.ndim), shape.tolist(), strict=True):
            k, own = axis % x.ndim, x.shape[axis]
            if own > size:
                x = x.narrow(k, (own - size) // 2, size)
            elif own < size:
                less = (size - own) // 2
                x = F.pad(x, [0, 0] * (x.ndim - 1 - k) + [less, size - own - less])
        return x

    return run


@operator("Col2Im")
def _col2im(node: Node) -> Operator:
    def run(x: Tensor, image: Tensor, block: Tensor) -> Tensor:
        sizes, kernel = image.tolist(), block.tolist()
        rank = len(sizes)
        step, pads = node.get("strides", [1] * rank), node.get("pads", [0] * 2 * rank)
        dilation = node.get("dilations", [1] * rank)
        grown = [n + b + e for n, b, e in zip(sizes, pads[:rank], pads[rank:], strict=True)]
        settings = zip(grown, kernel, dilation, step, strict=True)
        spans = [(g - (k - 1) * d - 1) // s + 1 for g, k, d, s in settings]
        n, columns, _ = x.shape
        channels = columns
        for k in kernel:
            channels //= k
        parts, whole = x.reshape(n, channels, *kernel, *spans), x.new_zeros(n, channels, *grown)
        for place in itertools.product(*(range(k) for k in kernel)):
            ends: Any = [
                slice(p * d, p * d + (c - 1) * s + 1, s)
                for p, d, c, s in zip(place, dilation, spans, step, strict=True)
            ]
            target: Any = (..., *ends)
            source: Any = (slice(None), slice(None), *place)
            whole[target] += parts[source]
        inner: Any = (..., *(slice(b, b + size) for b, size in zip(pads[:rank], sizes, strict=True)))
        return whole[inner]

    return run
