"""Refuse graphs whose weights are NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx.numpy_helper
from ctinv.adapters.errors import ModelError

from .weights import inner_graphs, is_external

__all__ = ["refuse_unfinite"]

_FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.DOUBLE,
)
# What is multiplied with the image. Elsewhere infinities mask or bound values: in Where, Clip, Max, Pad.
_FACTORS = frozenset(
    [
        "Attention",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "Div",
        "Einsum",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GRU",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LSTM",
        "LayerNormalization",
        "MatMul",
        "Mul",
        "PRelu",
        "QAttention",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
        "RMSNormalization",
        "RNN",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
    ]
)
_SUMS = frozenset({"Add", "Sub", "BiasGelu", "FastGelu"})
_CARRIERS = frozenset(
    [
        "Cast",
        "Concat",
        "DequantizeLinear",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
_CHUNK = 1 << 24


def refuse_unfinite(model: onnx.ModelProto, outside: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse NaN in any constant that is used, and infinities in those that are weights.

    Arguments:
        model: The model, functions inlined.
        outside: Weights that are not in it, by name.
        where: Its path, for messages.

    Raises:
        ModelError: A tensor is not finite; it is named.
    """
    nodes = list(_nodes(model.graph))
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for name, tensor in _constants(model.graph, nodes):
        if tensor.data_type not in _FLOATS or (name not in users and not _is_output(model, name)):
            continue
        values = outside.get(name) if is_external(tensor) else onnx.numpy_helper.to_array(tensor)
        if values is None:
            continue
        nan, infinite = _count(values)
        if nan or (infinite and _is_weight(name, values, users)):
            raise ModelError(
                f"{where}: {nan + infinite} of {values.size} values of the weight {name!r} are NaN or "
                "infinite; export the network from another checkpoint, from before the training diverged"
            )


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _nodes(inner)


def _constants(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Stored tensors and those of Constant nodes, also in subgraphs, by name."""
    graphs = [graph, *(inner for node in nodes for inner in inner_graphs(node))]
    for each in graphs:
        yield from ((tensor.name, tensor) for tensor in each.initializer)
        yield from ((sparse.values.name, sparse.values) for sparse in each.sparse_initializer)
    for node in nodes:
        if node.op_type == "Constant":
            yield from ((node.output[0], a.t) for a in node.attribute if a.name == "value")


def _is_output(model: onnx.ModelProto, name: str) -> bool:
    return any(value.name == name for value in model.graph.output)


def _count(values: np.ndarray) -> tuple[int, int]:
    """How many values are NaN, and how many infinite; a part at a time, as there may be many."""
    flat = values.reshape(-1)
    nan = infinite = 0
    for start in range(0, flat.size, _CHUNK):
        part = np.asarray(flat[start : start + _CHUNK], dtype=None if flat.dtype.kind == "f" else np.float32)
        if not np.isfinite(part).all():
            nan += int(np.isnan(part).sum())
            infinite += int(np.isinf(part).sum())
    return nan, infinite


def _is_weight(name: str, values: np.ndarray, users: Mapping[str, list[onnx.NodeProto]]) -> bool:
    """Whether a constant is multiplied with the image or is a bias, through whatever turns its axes."""
    if name.endswith(("weight", "bias")):
        return True
    waiting, seen = [name], {name}
    while waiting:
        own = waiting.pop()
        for node in users.get(own, ()):
            carried = node.op_type in _CARRIERS and (own == node.input[0] or node.op_type == "Concat")
            if carried:
                waiting.extend(out for out in node.output if out not in seen)
                seen.update(node.output)
            elif node.op_type in _FACTORS and not (node.op_type == "Attention" and own not in node.input[:3]):
                return True
            elif node.op_type in _SUMS and (values.ndim < 2 or np.isposinf(values).any()):
                return True  # an additive mask of an attention is a table, and minus infinity
    return False
