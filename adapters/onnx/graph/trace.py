"""What flows where in an ONNX graph: producers, users, types, and what depends on the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

from .weights import inner_graphs, is_external

__all__ = ["Trace", "captured", "initializers", "value_shape", "value_type"]

_LARGE = 1024
_LONGEST = 10**6
_GROWING = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Resize", "Tile"})
"""Operators whose results can be of any length, however short the file is."""


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The stored tensors of a graph by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def captured(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor name that a subgraph, or one deeper inside, reads."""
    for node in graph.node:
        yield from node.input
        for inner in inner_graphs(node):
            yield from captured(inner)
    for output in graph.output:
        yield output.name


def value_type(value: onnx.ValueInfoProto) -> int:
    """Element type of a value; 0 where it is unknown or no tensor."""
    return value.type.tensor_type.elem_type if value.type.HasField("tensor_type") else 0


def value_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Shape of a value with None for free axes; None where even the rank is unknown."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without large weights, which become inputs of known type and shape."""
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.name = "shapes"
    graph.node.extend(model.graph.node)
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    stored = initializers(model.graph)
    graph.input.extend(value for value in model.graph.input if value.name not in stored)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) > _LARGE:
            graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            graph.initializer.append(tensor)
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > _LARGE:
            dims[0].Clear()  # inference would keep a value for each element
        for axis, dim in enumerate(dims):
            if dim.dim_param:  # a file may call two axes alike that are not
                dim.dim_param = f"{value.name}:{axis}"
    return light


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The skeleton with inferred shapes; values are followed through it only where no list of them is long.

    Following values costs time and memory for each element of a list, here in this process.
    """
    skeleton = _skeleton(model)
    inferred = onnx.shape_inference.infer_shapes(skeleton)
    known = {value.name: value_shape(value) for value in (*inferred.graph.value_info, *inferred.graph.output)}
    lengths = [shape[0] for shape in known.values() if shape is not None and len(shape) == 1]
    grown = [name for node in inferred.graph.node if node.op_type in _GROWING for name in node.output]
    unbounded = any(known.get(name) in (None, (None,)) for name in grown)
    if unbounded or any(length is not None and length > _LONGEST for length in lengths):
        return inferred
    return onnx.shape_inference.infer_shapes(skeleton, data_prop=True)


class Trace:
    """The wiring of a model's main graph.

    Besides the arguments it has ``nodes``, ``stored`` (weights), ``producer``, ``users`` and ``needs``
    (who makes and reads what), ``from_image`` (what depends on the image), ``types``, ``shapes`` (None
    for free axes) and ``declared`` (inferred types and shapes with their free axes named).

    Arguments:
        model: The model, functions inlined.
        image: Name of the image input.
    """

    def __init__(self, model: onnx.ModelProto, image: str) -> None:
        self.model = model
        self.image = image
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.stored = initializers(model.graph)
        self.producer: dict[str, int] = {}
        self.users: dict[str, list[int]] = {}
        self.needs: list[set[str]] = []
        for index, node in enumerate(self.nodes):
            needs = {name for name in node.input if name}
            for inner in inner_graphs(node):
                needs.update(name for name in captured(inner) if name)
            self.needs.append(needs)
            for name in node.output:
                if name:
                    self.producer.setdefault(name, index)
            for name in needs:
                self.users.setdefault(name, []).append(index)
        self.from_image = self._from_image()
        self.declared: dict[str, onnx.ValueInfoProto] = {}
        self.types, self.shapes = self._inferred()

    def _from_image(self) -> set[str]:
        reached, waiting = {self.image}, [self.image]
        while waiting:
            for index in self.users.get(waiting.pop(), ()):
                if self.nodes[index].op_type in ("Shape", "Size"):
                    continue  # these see the image's size, not the image
                for name in self.nodes[index].output:
                    if name and name not in reached:
                        reached.add(name)
                        waiting.append(name)
        return reached

    def _inferred(self) -> tuple[dict[str, int], dict[str, tuple[int | None, ...]]]:
        values: list[onnx.ValueInfoProto] = [*self.model.graph.input, *self.model.graph.output]
        try:
            light = _inferred(self.model)
            values += [*light.graph.input, *light.graph.output, *light.graph.value_info]
            self.declared = {value.name: value for value in light.graph.value_info if value_shape(value)}
        except Exception:  # the runtime, which infers for itself, has the last word
            values += list(self.model.graph.value_info)
        types = {tensor.name: tensor.data_type for tensor in self.stored.values()}
        shapes: dict[str, tuple[int | None, ...]] = {
            tensor.name: tuple(tensor.dims) for tensor in self.stored.values()
        }
        for value in values:
            if kind := value_type(value):
                types[value.name] = kind
            if (shape := value_shape(value)) is not None:
                shapes[value.name] = shape
        return types, shapes

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a stored tensor or Constant node; None for anything computed."""
        if name in self.stored:
            if is_external(self.stored[name]):
                return None
            return np.asarray(onnx.numpy_helper.to_array(self.stored[name]))
        index = self.producer.get(name)
        if index is None:
            return None
        node = self.nodes[index]
        if node.op_type == "Identity" and node.input[0] != name:
            return self.constant(node.input[0]) if node.input[0] in self.stored else None
        if node.op_type != "Constant":
            return None
        for attribute in node.attribute:
            value = onnx.helper.get_attribute_value(attribute)
            if attribute.name == "value":
                return np.asarray(onnx.numpy_helper.to_array(value))
            if attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
                return np.asarray(value)
        return None

    def upstream(self, names: Iterable[str]) -> list[int]:
        """Indices of the nodes that these tensors need, in graph order."""
        keep: set[int] = set()
        waiting = list(names)
        while waiting:
            index = self.producer.get(waiting.pop())
            if index is not None and index not in keep:
                keep.add(index)
                waiting.extend(self.needs[index])
        return sorted(keep)
