"""Operators of ONNX in PyTorch that look at neighbours: convolution, pooling, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .ops import Node, NotPlainError, Operator, operator

__all__: list[str] = []

_CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOLS: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_Ends = tuple[list[int], list[int]]


def _ends(node: Node, sizes: Sequence[int], kernel: Sequence[int], step: Sequence[int]) -> _Ends:
    """What a window operator adds before and after each spatial axis."""
    rule, rank = node.get("auto_pad", "NOTSET") or "NOTSET", len(sizes)
    if rule == "NOTSET":
        pads = list(node.get("pads", [0] * 2 * rank))
        return pads[:rank], pads[rank:]
    if rule == "VALID":
        return [0] * rank, [0] * rank
    dilation = node.get("dilations", [1] * rank)
    total = [
        max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        for size, k, s, d in zip(sizes, kernel, step, dilation, strict=True)
    ]
    return _shared(total, upper=rule == "SAME_UPPER")


def _shared(total: Sequence[int], upper: bool) -> _Ends:
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return (less, more) if upper else (more, less)


def _grown(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    """A border of one value around the last axes; negative widths cut."""
    widths = chain.from_iterable(zip(reversed(before), reversed(after), strict=True))
    return F.pad(x, list(widths), value=value)


@operator("Conv")
def _conv(node: Node) -> Operator:
    groups = node.get("group", 1)

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        rank = w.ndim - 2
        step, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
        before, after = _ends(node, x.shape[2:], w.shape[2:], step)
        if before != after:
            x, before = _grown(x, before, after), [0] * rank
        convolved: Tensor = _CONVS[rank](x, w, b, step, before, dilation, groups)
        return convolved

    return run


@operator("ConvTranspose")
def _conv_transpose(node: Node) -> Operator:
    groups, target = node.get("group", 1), node.get("output_shape")
    rule = node.get("auto_pad", "NOTSET") or "NOTSET"

    def run(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        rank = w.ndim - 2
        step, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
        extra = node.get("output_padding", [0] * rank)
        before, after = _ends(node, x.shape[2:], w.shape[2:], step) if rule == "NOTSET" else ([0] * rank,) * 2
        if target or rule.startswith("SAME"):
            sizes = zip(x.shape[2:], w.shape[2:], step, dilation, extra, strict=True)
            full = [(n - 1) * s + e + (k - 1) * d + 1 for n, k, s, d, e in sizes]
            wanted = target or [n * s for n, s in zip(x.shape[2:], step, strict=True)]
            total = [f - t for f, t in zip(full, wanted, strict=True)]
            if min(total) < 0:
                raise NotPlainError("a transposed convolution that must grow")
            before, after = _shared(total, upper=rule == "SAME_UPPER")
        if before == after:
            same: Tensor = _TRANSPOSED[rank](x, w, b, step, before, extra, groups, dilation)
            return same
        whole: Tensor = _TRANSPOSED[rank](x, w, b, step, 0, extra, groups, dilation)
        return _grown(whole, [-n for n in before], [-n for n in after])

    return run


@operator("MaxPool")
def _max_pool(node: Node) -> Operator:
    if node.outputs > 1:
        raise NotPlainError("the places of maxima")
    kernel, rounded_up = list(node.get("kernel_shape")), bool(node.get("ceil_mode", 0))
    rank = len(kernel)
    step, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)

    def run(x: Tensor) -> Tensor:
        before, after = _ends(node, x.shape[2:], kernel, step)
        if before != after or any(2 * b > k for b, k in zip(before, kernel, strict=True)):
            x, before = _grown(x, before, after, -math.inf), [0] * rank
        pooled: Tensor = _MAX_POOLS[rank](x, kernel, step, before, dilation, rounded_up)
        return pooled

    return run


@operator("AveragePool")
def _average_pool(node: Node) -> Operator:
    kernel, rounded_up = list(node.get("kernel_shape")), bool(node.get("ceil_mode", 0))
    rank, whole = len(kernel), bool(node.get("count_include_pad", 0))
    step = node.get("strides", [1] * rank)
    if any(d != 1 for d in node.get("dilations", [1])):
        raise NotPlainError("a dilated average")

    def run(x: Tensor) -> Tensor:
        pool = _AVERAGE_POOLS[rank]
        before, after = _ends(node, x.shape[2:], kernel, step)
        if before == after and all(2 * b <= k for b, k in zip(before, kernel, strict=True)):
            even: Tensor = pool(x, kernel, step, before, rounded_up, whole)
            return even
        grown = pool(_grown(x, before, after), kernel, step, 0, rounded_up)
        if whole:
            return torch.as_tensor(grown)
        share = pool(_grown(torch.ones_like(x), before, after), kernel, step, 0, rounded_up)
        return torch.as_tensor(grown / share)

    return run


@operator("LpPool")
def _lp_pool(node: Node) -> Operator:
    kernel, power = list(node.get("kernel_shape")), node.get("p", 2)
    rank = len(kernel)
    step, dilation = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    if node.get("ceil_mode", 0):
        raise NotPlainError("a norm over windows rounded up")

    def run(x: Tensor) -> Tensor:
        before, after = _ends(node, x.shape[2:], kernel, step)
        channels = x.shape[1]
        ones = torch.ones(channels, 1, *kernel, dtype=x.dtype, device=x.device)
        powers = _grown(x.abs() ** power, before, after)
        sums: Tensor = _CONVS[rank](powers, ones, None, step, 0, dilation, channels)
        return sums ** (1 / power)

    return run


@operator("GlobalAveragePool")
def _global_average(_: Node) -> Operator:
    return lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def _global_max(_: Node) -> Operator:
    return lambda x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)


@operator("Pad")
def _pad(node: Node) -> Operator:
    mode = node.get("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise NotPlainError(f"padding of mode {mode}")
    # Attributes up to opset 10.
    stated, constant = node.get("pads") or node.get("paddings"), node.get("value", 0.0)

    def run(x: Tensor, pads: Any = stated, value: Any = constant, axes: Any = None) -> Tensor:
        widths = [int(n) for n in pads]
        half = len(widths) // 2
        places = range(half) if axes is None else [int(axis) % x.ndim for axis in axes]
        before, after = [0] * x.ndim, [0] * x.ndim
        for place, b, e in zip(places, widths[:half], widths[half:], strict=True):
            before[place], after[place] = b, e
        if mode == "constant":
            return _grown(x, before, after, float(0.0 if value is None else value))
        for axis, (b, e) in enumerate(zip(before, after, strict=True)):
            if b or e:
                kept = np.arange(x.shape[axis])[max(-b, 0) : x.shape[axis] - max(-e, 0)]
                index: Any = np.pad(kept, (max(b, 0), max(e, 0)), mode=mode)  # type: ignore[call-overload]
                x = x.index_select(axis, torch.from_numpy(index).to(x.device))
        return x

    return run


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Operator:
    size, columns_first = node.get("blocksize"), node.get("mode", "DCR") == "DCR"

    def run(x: Tensor) -> Tensor:
        if not columns_first:
            return F.pixel_shuffle(x, size)
        n, c, h, w = x.shape
        parts = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return parts.reshape(n, c // size**2, h * size, w * size)

    return run


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Operator:
    size = node.get("blocksize")
    order = (0, 3, 5, 1, 2, 4) if node.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // size, size, w // size, size).permute(order)
        return parts.reshape(n, c * size**2, h // size, w // size)

    return run
