"""Resizing as ONNX defines it, in PyTorch: one axis after the other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .ops import Node, NotPlainError, Operator, operator

__all__: list[str] = []

_COORDINATES = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "align_corners", "asymmetric")
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_Places = npt.NDArray[np.float32]


@operator("Resize", "Upsample")
def _resize(node: Node) -> Operator:
    mode = node.get("mode", "nearest")
    old = node.opset < 11
    rule = "asymmetric" if old else node.get("coordinate_transformation_mode", "half_pixel")
    rounding = "floor" if old else node.get("nearest_mode", "round_prefer_floor")
    known = mode in ("nearest", "linear", "cubic") and rule in _COORDINATES and rounding in _ROUNDINGS
    if not known or node.get("antialias", 0) or node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotPlainError(f"resizing of mode {mode}, {rule}, {rounding}")
    stated, only = node.get("scales"), node.get("axes")

    def run(x: Tensor, *rest: Tensor | None) -> Tensor:
        given: list[Any] = [None, None, None]  # region, scales, sizes
        given[1 if old else 0 : len(rest) + old] = rest
        scales, sizes = given[1] if given[1] is not None and len(given[1]) else stated, given[2]
        axes = range(x.ndim) if only is None else [axis % x.ndim for axis in only]
        factors = [1.0] * x.ndim
        lengths = list(x.shape)
        for k, axis in enumerate(axes):
            if sizes is not None:
                lengths[axis] = int(sizes[k])
                factors[axis] = lengths[axis] / x.shape[axis]
            else:
                factors[axis] = float(scales[k])
                lengths[axis] = math.floor(x.shape[axis] * factors[axis])
                if rule == "align_corners" and lengths[axis] != x.shape[axis] * factors[axis]:
                    raise NotPlainError("aligned corners at a part of a pixel, which runtimes disagree on")
        halves = rule.endswith("half_pixel") and rounding.startswith("round")
        exact = halves or (rule, rounding) == ("asymmetric", "floor")
        if mode == "nearest" and exact and x.ndim == 4 and _repeats(factors):
            return F.interpolate(x, scale_factor=(factors[2], factors[3]))
        for axis, (factor, length) in enumerate(zip(factors, lengths, strict=True)):
            if factor != 1.0 or length != x.shape[axis]:
                places = _places(rule, length, x.shape[axis], factor)
                x = _along(x, axis, places, mode, rounding, node)
        return x

    return run


@operator("GridSample")
def _grid_sample(node: Node) -> Operator:
    mode, border = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    way = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    corners = bool(node.get("align_corners", 0))

    def run(x: Tensor, grid: Tensor) -> Tensor:
        if way == "bicubic" and x.ndim != 4:
            raise NotPlainError("cubic sampling of volumes")
        return F.grid_sample(x, grid, way, border, corners)

    return run


@operator("AffineGrid")
def _affine_grid(node: Node) -> Operator:
    corners = bool(node.get("align_corners", 0))
    return lambda theta, size: F.affine_grid(theta, [int(n) for n in size], corners)


def _repeats(factors: list[float]) -> bool:
    return factors[:2] == [1.0, 1.0] and all(f >= 1 and f == int(f) for f in factors)


def _places(rule: str, length: int, size: int, factor: float) -> _Places:
    """Where each new pixel lies among the old ones."""
    new = np.arange(length, dtype=np.float32)
    if rule == "asymmetric":
        return (new / np.float32(factor)).astype(np.float32)
    if rule == "align_corners":
        return (new * np.float32((size - 1) / (length - 1) if length > 1 else 0)).astype(np.float32)
    if rule == "pytorch_half_pixel" and length == 1:
        return np.zeros(1, dtype=np.float32)
    shift = 0.0
    if rule == "half_pixel_symmetric":
        shift = size / 2 * (1 - length / (factor * size))
    return (shift + (new + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)).astype(np.float32)


def _along(x: Tensor, axis: int, places: _Places, mode: str, rounding: str, node: Node) -> Tensor:
    """One axis, interpolated at the places given."""
    size = x.shape[axis]
    if mode == "nearest":
        nearest: Any = {
            "round_prefer_floor": lambda p: np.ceil(p - 0.5),
            "round_prefer_ceil": lambda p: np.floor(p + 0.5),
            "floor": np.floor,
            "ceil": np.ceil,
        }[rounding]
        return _taken(x, axis, nearest(places))
    if mode == "linear":
        places = np.clip(places, 0, size - 1)
        low = np.floor(places)
        return _sum(x, axis, [(low, 1 - (places - low)), (low + 1, places - low)])
    low = np.floor(places)
    t = places - low
    a = node.get("cubic_coeff_a", -0.75)
    weights = [_cubic(t + 1, a), _cubic(t, a), _cubic(1 - t, a), _cubic(2 - t, a)]
    taps = [low - 1, low, low + 1, low + 2]
    if node.get("exclude_outside", 0):
        weights = [w * ((p >= 0) & (p < size)) for w, p in zip(weights, taps, strict=True)]
        whole = sum(weights)
        weights = [w / whole for w in weights]
    return _sum(x, axis, list(zip(taps, weights, strict=True)))


def _cubic(t: _Places, a: float) -> npt.NDArray[Any]:
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return np.where(t <= 1, near, far)


def _taken(x: Tensor, axis: int, index: npt.NDArray[Any]) -> Tensor:
    kept = np.clip(index, 0, x.shape[axis] - 1).astype(np.int64)
    return x.index_select(axis, torch.from_numpy(kept).to(x.device))


def _sum(x: Tensor, axis: int, taps: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> Tensor:
    shape = [-1 if k == axis else 1 for k in range(x.ndim)]
    total: Tensor | None = None
    for index, weight in taps:
        factor = torch.from_numpy(weight.astype(np.float32)).to(x).reshape(shape)
        part = _taken(x, axis, index) * factor
        total = part if total is None else total + part
    assert total is not None
    return total
