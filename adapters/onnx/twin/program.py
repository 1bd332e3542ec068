"""The nodes of a graph as steps that run one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import onnx
import torch
from ctinv.adapters.onnx.graph.trace import captured
from ctinv.adapters.onnx.graph.weights import inner_graphs
from torch import Tensor

from .ops import BUILDERS, Node, NotPlainError, Operator
from .ops_shapes import constant, stored

__all__ = ["Branch", "Step", "read_steps", "run_steps"]

Keep = Callable[[str, Tensor], None]


class Step(NamedTuple):
    """One operator: what it reads, what it makes, and what nothing later needs."""

    operator: Operator
    reads: list[str]
    makes: list[str]
    done: list[str]


def _outside(node: onnx.NodeProto) -> list[str]:
    """What a node's subgraphs read from around them."""
    names: dict[str, None] = {}
    for inner in inner_graphs(node):
        own = {tensor.name for tensor in inner.initializer} | {value.name for value in inner.input}
        own.update(name for child in _deep(inner) for name in child.output)
        names.update(dict.fromkeys(name for name in captured(inner) if name and name not in own))
    return list(names)


def _deep(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in inner_graphs(node):
            yield from _deep(inner)


def read_steps(
    graph: onnx.GraphProto, opset: int, known: set[str], outputs: Iterable[str], keep: Keep
) -> tuple[list[Step], str]:
    """Turn nodes into steps.

    Arguments:
        graph: The graph.
        opset: Version of the operator set that the model states.
        known: Tensors that are there before it runs: inputs, and what lies around a subgraph.
        outputs: Tensors that are wanted from it.
        keep: Called with the name and value of each constant.

    Returns:
        The steps, and a digest of operators and wiring.

    Raises:
        NotPlainError: There is an operator, a type or a tensor that is not rebuilt.
    """
    known = set(known)
    if graph.sparse_initializer:
        raise NotPlainError("sparse weights")
    for tensor in graph.initializer:
        keep(tensor.name, stored(tensor))
        known.add(tensor.name)
    operations: list[tuple[Operator, list[str], list[str]]] = []
    digest = hashlib.sha256(str(opset).encode())
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        outside = _outside(node)
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            keep(node.output[0], constant(attributes))
        elif (build := BUILDERS.get(node.op_type)) and node.domain in ("", "ai.onnx"):
            operator = build(Node(attributes, opset, len(node.output), tuple(outside)))
            operations.append((operator, [*node.input, *outside], list(node.output)))
        else:
            raise NotPlainError(f"operator {node.domain + '::' * bool(node.domain)}{node.op_type}")
        known.update(node.output)
        digest.update(f"{node.op_type}{list(node.input)}{list(node.output)}{node.attribute}".encode())
    wanted = set(outputs)
    missing = ({name for _, names, _ in operations for name in names if name} | wanted) - known
    if missing:
        raise NotPlainError(f"tensor {min(missing)} from outside")
    steps: list[Step] = []
    for operator, read, made in reversed(operations):
        done = [name for name in dict.fromkeys((*read, *made)) if name and name not in wanted]
        wanted.update(read)
        steps.append(Step(operator, read, made, done))
    return steps[::-1], digest.hexdigest()


def run_steps(steps: Sequence[Step], values: dict[str, Any]) -> None:
    """Run steps on the values of tensors by name, to which theirs are added."""
    for operator, reads, makes, done in steps:
        # Inputs left out at the end are left to the operator's own default.
        given = [values[name] if name else None for name in reads]
        while given and given[-1] is None:
            given.pop()
        results = operator(*given)
        if len(makes) == 1 and not isinstance(results, tuple):
            results = (results,)
        values.update(zip(makes, results, strict=True))
        for name in done:
            values.pop(name, None)


class Branch:
    """A subgraph, as a function of its inputs and of what it reads from around it.

    Arguments:
        graph: The subgraph.
        opset: Version of the operator set that the model states.
        around: Names of what it may read from around it.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int, around: Sequence[str]) -> None:
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self._constants: dict[str, Tensor] = {}
        known = {*self.inputs, *around}
        self._steps, _ = read_steps(graph, opset, known, self.outputs, self._constants.__setitem__)

    def __call__(self, inputs: Sequence[Any], around: dict[str, Any]) -> list[Any]:
        """The subgraph's outputs."""
        place = next((v.device for v in (*inputs, *around.values()) if _floats(v)), torch.device("cpu"))
        constants = {name: v.to(place) if _floats(v) else v for name, v in self._constants.items()}
        values = {**around, **constants, **dict(zip(self.inputs, inputs, strict=True))}
        run_steps(self._steps, values)
        return [values[name] for name in self.outputs]


def _floats(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
