"""Which tensors of a graph are the outputs of the modules that the exporter recorded."""

from __future__ import annotations

from collections.abc import Sequence

from ctinv.adapters.onnx.graph.sizes import words
from ctinv.adapters.onnx.graph.trace import Trace

from .changes import Changes
from .scope import Scope
from .scopes import metadata

__all__ = ["RULE", "module_outputs", "unwrapped"]

RULE = "pkg.onnxscript.rewriter.rule_name"

# What modules of PyTorch are made of. In a graph that was changed after its export, a module left with
# other operators, or none of these alone, may have lost its last one to its neighbours.
_WHOLE = words(
    """AveragePool BatchNormalization Celu Clip Conv ConvTranspose DepthToSpace Elu Gelu Gemm
    GlobalAveragePool GlobalMaxPool GroupNormalization HardSigmoid HardSwish InstanceNormalization
    LRN LayerNormalization LeakyRelu LogSoftmax MaxPool Mish PRelu Relu Resize Selu Sigmoid Softmax
    Softplus Softsign SpaceToDepth Tanh ThresholdedRelu Upsample"""
)
_TOGETHER = {
    tuple(sorted(words.split()))
    for words in (
        "Sigmoid Mul",
        "HardSigmoid Mul",
        "Softplus Tanh Mul",
        "Div Erf Add Mul Mul",
        "MatMul Add",
        "Reshape InstanceNormalization Reshape Mul Add",
        "Reshape InstanceNormalization Shape Reshape Mul Add",
    )
}


def unwrapped(module: str) -> str:
    """A module's name without the prefixes of DataParallel and torch.compile."""
    parts = module.split(".")
    while len(parts) > 1 and parts[0] in ("module", "_orig_mod"):
        parts = parts[1:]
    return ".".join(parts)


class _Members:
    """The nodes of each call of each module."""

    def __init__(self, trace: Trace, scopes: Sequence[Scope | None], changes: Changes) -> None:
        self._trace = trace
        self._scopes = scopes
        self._changes = changes
        self._finals = {value.name for value in trace.model.graph.output}
        self.own: dict[tuple[str, int], set[int]] = {}
        self.all: dict[str, set[int]] = {}
        self.unsure: set[str] = set()
        for index, scope in enumerate(scopes):
            if scope is None or not scope.module:
                continue
            self.own.setdefault((scope.module, scope.call), set()).add(index)
            for module in (*scope.parents, scope.module):
                self.all.setdefault(module, set()).add(index)
                if scope.calls > 1 or not scope.certain:
                    self.unsure.add(module)

    def is_leaf(self, module: str) -> bool:
        own = {index for (name, _), members in self.own.items() if name == module for index in members}
        return self.all[module] == own

    def is_whole(self, module: str, own: set[int]) -> bool:
        """Whether the nodes that a changed graph has left of a module are surely all that there were."""
        ops = tuple(sorted(self._changes.operator(index) for index in own))
        bias = f"{module}.bias"
        biased = bias in self._trace.stored or bias in self._trace.users
        if ops in (("MatMul",), ("Add",)):
            return biased == (ops == ("Add",))
        if len(ops) > 1:
            return ops in _TOGETHER
        # Where channels are turned to the end for it and back, the turns may have been cancelled.
        shape = self._trace.shapes.get(self._trace.nodes[min(own)].output[0])
        turned = ops[0] == "LayerNormalization" and (shape is None or len(shape) == 4)
        return ops[0] in _WHOLE and not turned

    def output(self, members: set[int], single: bool) -> str:
        """The one tensor that leaves a set of nodes; empty where it is not one.

        An optimiser that merged operations of neighbouring modules may have taken the last one of
        this module away, unless the module has only one.
        """
        trace, outputs = self._trace, []
        for index in sorted(members):
            for name in trace.nodes[index].output:
                users = trace.users.get(name, ())
                outside = [user for user in users if user not in members]
                if name not in trace.from_image or not (outside or name in self._finals):
                    continue
                if self._changes.doubt(index) or name in self._changes.blocked:
                    return ""
                if not single and any(self._scopes[user] is None for user in outside):
                    return ""  # who reads it may belong to the module
                if not single and any(metadata(trace.nodes[user], RULE) for user in outside):
                    return ""
                outputs.append(name)
        return outputs[0] if len(outputs) == 1 else ""


def module_outputs(
    trace: Trace, scopes: Sequence[Scope | None], changes: Changes
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Tensors that are surely the output of a module, by tensor.

    In a graph that was changed after its export, these are outputs of single layers only.

    Arguments:
        trace: The graph.
        scopes: The module call that made each node's output; None where that is not known.
        changes: What was done to the graph after its export.

    Returns:
        The module whose own operation made the tensor (``relu@1`` for a second call), and the
        modules around that return the same tensor.
    """
    members = _Members(trace, scopes, changes)
    names: dict[str, str] = {}
    around: dict[str, list[str]] = {}
    for (module, call), own in members.own.items():
        scope = scopes[min(own)]
        if scope is None or not scope.certain or not members.is_leaf(module):
            continue
        if changes.by and not members.is_whole(module, own):
            continue
        if out := members.output(own, scope.single or bool(changes.by)):
            names[out] = unwrapped(module) + (f"@{call}" if scope.calls > 1 else "")
    if changes.by:
        return names, around
    for module, nodes in sorted(members.all.items(), key=lambda item: -len(item[0])):
        if module in members.unsure or members.is_leaf(module) or not (out := members.output(nodes, False)):
            continue
        maker = scopes[trace.producer[out]]
        if maker is not None and maker.module == module and out not in names:
            names[out] = unwrapped(module)
        else:
            around.setdefault(out, []).append(unwrapped(module))
    return names, around
