"""Weights kept in files beside a model: read in, or mapped where they are too large for one message."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.external_data_helper
from ctinv.adapters.errors import ModelError

__all__ = ["INLINE_LIMIT", "inner_graphs", "is_external", "load_weights", "stored_tensors"]

INLINE_LIMIT = 1_800_000_000
"""Bytes of external weights above which a model cannot be handed to the runtime as one message."""

_SMALL = 1024
_SLACK = 1 << 16


def inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The subgraphs that a node such as If or Loop carries, not those nested deeper."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def stored_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant tensor of a graph and its subgraphs."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
        for inner in inner_graphs(node):
            yield from stored_tensors(inner)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's values are not in the message."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")


def _count(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def load_weights(model: onnx.ModelProto, path: Path) -> dict[str, np.ndarray]:
    """Fill in a model's external weights, found beside its file and nowhere else.

    Returns:
        By name, weights that stay outside the message because there are too many of them: arrays
        mapped from their file, read when used. Empty for all but very large models.

    Raises:
        ModelError: Weights are missing, cut short, or lie outside the model's folder.
    """
    folder = path.resolve().parent
    tensors = [tensor for tensor in stored_tensors(model.graph) if is_external(tensor)]
    own = {tensor.name for tensor in model.graph.initializer}
    large = sum(4 * _count(tensor) for tensor in tensors) > INLINE_LIMIT
    mapped: dict[str, np.ndarray] = {}
    for tensor in tensors:
        try:
            if large and tensor.name in own and _count(tensor) > _SMALL:
                mapped[tensor.name] = _mapped(tensor, folder)
            else:
                _refuse_rest(tensor, folder)
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
        except Exception as error:  # onnx raises several unrelated kinds
            where = _entry(tensor, "location")
            if where and not (folder / where).exists():
                raise ModelError(
                    f"{path}: its weights are kept in {where}, which is not beside it; put that file in the "
                    "same folder, or export again with the weights inside"
                ) from error
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"{path}: its external weights cannot be read ({reason})") from error
    return mapped


def _refuse_rest(tensor: onnx.TensorProto, folder: Path) -> None:
    """Refuse to read a whole large file for a tensor that is small.

    Raises:
        ValueError: The file holds far more than the tensor, and the model does not say which part is meant.
    """
    stated = _entry(tensor, "length")
    file = folder / _entry(tensor, "location")
    rest = file.stat().st_size - int(_entry(tensor, "offset") or 0) if file.is_file() else 0
    read = int(stated) if stated else rest
    if read > 16 * _count(tensor) + _SLACK:
        raise ValueError(f"{read} bytes of {file.name} are meant for {_count(tensor)} values")


def _mapped(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    where = _entry(tensor, "location")
    file = folder / where
    if not where or file.is_symlink() or not file.resolve().is_relative_to(folder):
        raise ValueError(f"external data {where!r} is not a file in the model's own folder")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape, offset = tuple(tensor.dims), int(_entry(tensor, "offset") or 0)
    length = int(_entry(tensor, "length") or dtype.itemsize * _count(tensor))
    if dtype.kind not in "fiu" or length != dtype.itemsize * _count(tensor) or offset < 0:
        raise ValueError(f"external data {where!r} does not hold {_count(tensor)} {dtype} values")
    if offset + length > file.stat().st_size:
        raise ValueError(f"external data {where!r} is cut short")
    return np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
