"""A fingerprint of what decides an ONNX model's numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from .trace import value_shape, value_type
from .weights import is_external

__all__ = ["fingerprint"]


def fingerprint(model: onnx.ModelProto, weights: Mapping[str, np.ndarray], extra: Mapping[str, Any]) -> str:
    """SHA-256 of operators, wiring and weights, wherever the weights are kept.

    Names of files, doc strings, producer and metadata do not count.

    Arguments:
        model: The model.
        weights: Weights too large to be in it.
        extra: What was bound to it: values of further inputs, the layout, what layers' names mean.
    """
    digest = hashlib.sha256()
    for opset in sorted(model.opset_import, key=lambda o: o.domain):
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        digest.update(f"opset {domain} {opset.version}\n".encode())
    _graph(digest, model.graph, weights)
    for key in sorted(extra):
        value = extra[key]
        digest.update(f"{key} ".encode())
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype} {value.shape}".encode() + value.tobytes())
        else:
            digest.update(str(value).encode())
    return digest.hexdigest()


def _tensor(digest: Any, tensor: onnx.TensorProto, values: np.ndarray | None = None) -> None:
    digest.update(f"tensor {tensor.name} {tensor.data_type} {tuple(tensor.dims)}\n".encode())
    if tensor.data_type == onnx.TensorProto.STRING:
        digest.update(repr(list(tensor.string_data)).encode())
    elif values is not None:
        digest.update(values.reshape(-1).view(np.uint8))
    else:
        digest.update(np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)).tobytes())


def _graph(digest: Any, graph: onnx.GraphProto, weights: Mapping[str, np.ndarray]) -> None:
    for role, values in (("input", graph.input), ("output", graph.output)):
        for value in values:
            digest.update(f"{role} {value.name} {value_type(value)} {value_shape(value)}\n".encode())
    for tensor in sorted(graph.initializer, key=lambda t: t.name):
        _tensor(digest, tensor, weights.get(tensor.name) if is_external(tensor) else None)
    for sparse in graph.sparse_initializer:
        digest.update(sparse.SerializeToString(deterministic=True))
    for node in graph.node:
        digest.update(f"node {node.domain} {node.op_type} {list(node.input)} {list(node.output)}\n".encode())
        for attribute in sorted(node.attribute, key=lambda a: a.name):
            _attribute(digest, attribute, weights)


def _attribute(digest: Any, attribute: onnx.AttributeProto, weights: Mapping[str, np.ndarray]) -> None:
    digest.update(f"attribute {attribute.name} {attribute.type}\n".encode())
    if attribute.type == onnx.AttributeProto.GRAPH:
        _graph(digest, attribute.g, weights)
    elif attribute.type == onnx.AttributeProto.TENSOR:
        _tensor(digest, attribute.t)
    elif attribute.type == onnx.AttributeProto.GRAPHS:
        for graph in attribute.graphs:
            _graph(digest, graph, weights)
    else:
        copy = onnx.AttributeProto()
        copy.CopyFrom(attribute)
        copy.ClearField("doc_string")
        digest.update(copy.SerializeToString(deterministic=True))
