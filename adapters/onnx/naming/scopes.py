"""Which PyTorch module call made each ONNX node, as far as the exporter wrote it down."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence

import onnx

from .legacy import legacy_scopes
from .scope import Scope, dotted

__all__ = ["Scope", "dotted", "metadata", "read_scopes"]

_NAMES = "pkg.torch.onnx.name_scopes"
_TURNS = frozenset(
    {"permute", "transpose", "movedim", "view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"}
)
_CLASSES = "pkg.torch.onnx.class_hierarchy"


def metadata(node: onnx.NodeProto, key: str) -> str:
    """An entry of a node's metadata; empty where there is none."""
    return next((entry.value for entry in node.metadata_props if entry.key == key), "")


def _strings(text: str) -> list[str] | None:
    try:
        value = ast.literal_eval(text) if text else None
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    return None


def _dynamo(nodes: Sequence[onnx.NodeProto]) -> list[Scope | None]:
    chains = [_strings(metadata(node, _NAMES)) for node in nodes]
    classes = [_strings(metadata(node, _CLASSES)) for node in nodes]
    members: dict[str, list[int]] = {}
    for index, chain in enumerate(chains):
        if chain is not None and len(chain) > 2:
            members.setdefault(chain[-2], []).append(index)
    scopes: list[Scope | None] = [
        None if chain is None else Scope("" if len(chain) < 3 else chain[-2]) for chain in chains
    ]
    for module, indices in members.items():
        within = {index for index, chain in enumerate(chains) if chain and module in chain[1:-1]}
        numbers, certain = _calls(indices, chains, classes, within)
        total = max(numbers) + 1
        for index, call in zip(indices, numbers, strict=True):
            parents = tuple(part for part in (chains[index] or [])[1:-2] if part)
            single = _kind(classes[index]).startswith("torch.nn.")
            scopes[index] = Scope(module, parents, call, total, certain, single)
    return scopes


def _kind(hierarchy: list[str] | None) -> str:
    """The class of the innermost module."""
    return hierarchy[-2] if hierarchy and len(hierarchy) > 1 else ""


def _calls(
    indices: Sequence[int],
    chains: Sequence[list[str] | None],
    classes: Sequence[list[str] | None],
    within: Collection[int],
) -> tuple[list[int], bool]:
    """Number the calls that one module's nodes belong to; False where that is a guess.

    Nodes that lie apart, with others than those ``within`` the module between them, are of two calls.
    """
    ops = [(chains[index] or [""])[-1] for index in indices]
    kinds = [_kind(classes[index]) for index in indices]
    order = list(dict.fromkeys(ops))
    bases = {re.sub(r"_\d+$", "", op) for op in order}
    if len(order) == 1:
        return [0] * len(ops), True
    if len(bases) == 1 and all(kind.startswith("torch.nn.") for kind in kinds):
        return [order.index(op) for op in ops], True
    runs: list[int] = []
    for position, index in enumerate(indices):
        new = position > 0 and any(other not in within for other in range(indices[position - 1] + 1, index))
        runs.append(runs[-1] + 1 if new else (runs[-1] if runs else 0))
    # One call turns axes there and back; of what computes, a second one tells of a second call.
    computing = [base for op in order if (base := re.sub(r"_\d+$", "", op)) not in _TURNS]
    whole = len(set(runs)) == 1 and len(set(computing)) == len(computing)
    return runs, whole


def read_scopes(nodes: Sequence[onnx.NodeProto], weights: set[str]) -> list[Scope | None]:
    """The scope of every node, None where nothing was recorded.

    Arguments:
        nodes: The nodes of the graph, in order; of their operands, those that do not depend on the image.
        weights: Names of the stored tensors; ``relu_1`` is a second call of ``relu`` only where no
            weight says that a module of that name exists.
    """
    recorded = _dynamo(nodes)
    guessed = legacy_scopes(nodes, weights)
    return [scope if scope is not None else guess for scope, guess in zip(recorded, guessed, strict=True)]
