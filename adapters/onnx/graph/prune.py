"""Cut a graph down to what some of its tensors need, in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import onnx

from .trace import Trace

__all__ = ["Wanted", "prefix"]


class Wanted(NamedTuple):
    """A tensor to read from a graph.

    Arguments:
        tensor: Its name in the graph.
        scale: For an integer tensor, the tensor that holds its scale; empty for a float one.
        zero: The tensor that holds its zero point, or empty.
    """

    tensor: str
    scale: str = ""
    zero: str = ""

    @property
    def fetch(self) -> str:
        """The name of the output to fetch."""
        return f"{self.tensor}@dequantised" if self.scale else self.tensor


def prefix(trace: Trace, wanted: Sequence[Wanted]) -> onnx.ModelProto:
    """A model that computes just these tensors, with the nodes and weights they need and no more.

    Node metadata is kept, and node names where they are unique, as the runtime demands. Outputs
    are declared with the element type that shape inference gives, or without one, in which case
    the runtime finds it. What lies between is declared with its shape, so that the runtime knows
    which tensors are of one size and can share memory.
    """
    roots = [name for want in wanted for name in (want.tensor, want.scale, want.zero) if name]
    indices = trace.upstream(roots)
    needed = set(roots).union(*(trace.needs[index] for index in indices))
    source = trace.model
    model = onnx.ModelProto(ir_version=source.ir_version, producer_name=source.producer_name)
    model.opset_import.extend(source.opset_import)
    graph = model.graph
    graph.name = source.graph.name or "prefix"
    graph.node.extend(trace.nodes[index] for index in indices)
    counts = Counter(node.name for node in graph.node)
    for node in graph.node:
        if counts[node.name] > 1:
            node.ClearField("name")
    graph.input.extend(value for value in source.graph.input if value.name in needed)
    graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in needed)
    graph.sparse_initializer.extend(
        tensor for tensor in source.graph.sparse_initializer if tensor.values.name in needed
    )
    outputs = {want.tensor for want in wanted}
    between = (name for index in indices for name in trace.nodes[index].output if name not in outputs)
    graph.value_info.extend(trace.declared[name] for name in between if name in trace.declared)
    for want in dict.fromkeys(wanted):
        if want.scale:
            inputs = [want.tensor, want.scale, *([want.zero] if want.zero else [])]
            graph.node.append(
                onnx.helper.make_node("DequantizeLinear", inputs, [want.fetch], name=want.fetch)
            )
            graph.output.append(onnx.ValueInfoProto(name=want.fetch))
        else:
            value = onnx.ValueInfoProto(name=want.tensor)
            if kind := trace.types.get(want.tensor):
                value.type.tensor_type.elem_type = kind
            graph.output.append(value)
    return model
