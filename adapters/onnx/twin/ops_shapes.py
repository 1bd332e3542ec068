"""Operators of ONNX in PyTorch that move values, or compute with shapes."""

from __future__ import annotations

import math
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from .ops import Node, NotPlainError, Operator, operator

__all__ = ["constant", "stored"]

# Shapes and what is computed from them stay on the CPU, wherever the images are.


def _ints(values: Any) -> list[int]:
    return [int(value) for value in (values.reshape(-1).tolist() if isinstance(values, Tensor) else values)]


@operator("Shape")
def _shape(node: Node) -> Operator:
    start, end = node.get("start", 0), node.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@operator("Size")
def _size(_: Node) -> Operator:
    return lambda x: torch.tensor(math.prod(x.shape), dtype=torch.int64)


@operator("Reshape")
def _reshape(node: Node) -> Operator:
    keep, stated = not node.get("allowzero", 0), node.get("shape")

    def run(x: Tensor, shape: Any = stated) -> Tensor:
        sizes = _ints(shape)
        return x.reshape(tuple(x.shape[k] if n == 0 and keep else n for k, n in enumerate(sizes)))

    return run


@operator("Flatten")
def _flatten(node: Node) -> Operator:
    axis = node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        k = axis % x.ndim if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:k]), -1)

    return run


@operator("Transpose")
def _transpose(node: Node) -> Operator:
    order = node.get("perm")
    return lambda x: x.permute(order if order is not None else list(reversed(range(x.ndim))))


@operator("Squeeze")
def _squeeze(node: Node) -> Operator:
    stated = node.get("axes")  # an attribute up to opset 12

    def run(x: Tensor, axes: Any = stated) -> Tensor:
        return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))

    return run


@operator("Unsqueeze")
def _unsqueeze(node: Node) -> Operator:
    stated = node.get("axes")  # an attribute up to opset 12

    def run(x: Tensor, axes: Any = stated) -> Tensor:
        places = _ints(axes)
        rank = x.ndim + len(places)
        for place in sorted(place % rank for place in places):
            x = x.unsqueeze(place)
        return x

    return run


@operator("Concat")
def _concat(node: Node) -> Operator:
    return lambda *parts: torch.cat(parts, node.get("axis"))


@operator("Split")
def _split(node: Node) -> Operator:
    axis, stated = node.get("axis", 0), node.get("split")

    def run(x: Tensor, sizes: Any = stated) -> tuple[Tensor, ...]:
        if sizes is None:
            share = -(-x.shape[axis] // (node.get("num_outputs") or node.outputs))
            return x.split(share, axis)
        return x.split(_ints(sizes), axis)

    return run


@operator("Slice")
def _slice(node: Node) -> Operator:
    stated = [node.get(name) for name in ("starts", "ends", "axes")]  # attributes up to opset 9

    def run(x: Tensor, *given: Tensor | None) -> Tensor:
        starts, ends, axes, steps = (*(given or stated), None, None, None)[:4]
        places = range(len(starts)) if axes is None else _ints(axes)
        strides = [1] * len(places) if steps is None else _ints(steps)
        for axis, start, end, step in zip(places, _ints(starts), _ints(ends), strides, strict=True):
            # An end far below zero means as far as it goes, backwards.
            part = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
            if step > 0:
                x = x[(slice(None),) * (axis % x.ndim) + (part,)]
            else:
                index = torch.tensor(range(x.shape[axis])[part], dtype=torch.int64)
                x = x.index_select(axis, index.to(x.device))
        return x

    return run


@operator("Gather")
def _gather(node: Node) -> Operator:
    axis = node.get("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        size, place = x.shape[axis], axis % x.ndim
        flat = torch.where(index < 0, index + size, index).reshape(-1).to(x.device)
        gathered = x.index_select(axis, flat)
        return gathered.reshape((*x.shape[:place], *index.shape, *x.shape[place + 1 :]))

    return run


@operator("Expand")
def _expand(_: Node) -> Operator:
    def run(x: Tensor, shape: Tensor) -> Tensor:
        return x.broadcast_to(torch.broadcast_shapes(tuple(x.shape), tuple(_ints(shape))))

    return run


@operator("Tile")
def _tile(_: Node) -> Operator:
    return lambda x, repeats: x.repeat(_ints(repeats))


@operator("ConstantOfShape")
def _constant_of_shape(node: Node) -> Operator:
    value = node.get("value")
    fill = torch.zeros(1) if value is None else torch.from_numpy(numpy_helper.to_array(value).copy())
    return lambda shape: fill.reshape(()).expand(_ints(shape)).clone()


@operator("Range")
def _range(_: Node) -> Operator:
    return lambda start, limit, step: torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def constant(attributes: dict[str, Any]) -> Tensor:
    """The value of a Constant node.

    Raises:
        NotPlainError: It is neither a tensor nor a number.
    """
    for name, value in attributes.items():
        if name == "value":
            return stored(value)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
    raise NotPlainError("a constant that is no number")


def stored(tensor: onnx.TensorProto) -> Tensor:
    """A stored tensor's values.

    Raises:
        NotPlainError: They are kept elsewhere, or of a type that PyTorch lacks.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise NotPlainError("weights outside the message")
    try:
        return torch.from_numpy(numpy_helper.to_array(tensor).copy())
    except TypeError as error:
        raise NotPlainError(f"stored values of type {tensor.data_type}") from error
