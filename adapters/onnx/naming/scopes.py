"""Which PyTorch module call made each ONNX node, as far as the exporter wrote it down."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass

import onnx

__all__ = ["Scope", "dotted", "metadata", "read_scopes"]

_NAMES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
_COUNTED = re.compile(r"^(?P<base>.+)_(?P<call>[1-9]\d*)$")


@dataclass(frozen=True)
class Scope:
    """Where a node comes from.

    Arguments:
        module: Dotted name of the innermost module; empty for code of the network itself.
        parents: Dotted names of the modules around it, outermost first.
        call: Which call of the module this is, from 0.
        calls: How many calls of the module the graph holds.
        certain: Whether nodes and calls can be told apart for sure.
        single: Whether the module is known to be one of PyTorch's own, with one operation.
    """

    module: str
    parents: tuple[str, ...] = ()
    call: int = 0
    calls: int = 1
    certain: bool = True
    single: bool = False


def dotted(components: Sequence[str]) -> str:
    """Join the parts of a scope, leaving out a part that the next one repeats.

    Example:
        >>> dotted(["blk", "body", "body.0"])
        'blk.body.0'
        >>> dotted(["mid.0", "mid.0.1"])
        'mid.0.1'
    """
    kept = [
        part
        for part, after in zip(components, [*components[1:], ""], strict=True)
        if not after.startswith(f"{part}.")
    ]
    return ".".join(kept)


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


def _legacy_path(node: onnx.NodeProto) -> tuple[str, ...] | None:
    """Scope parts of a TorchScript exporter's name, ``/enc/enc.0/Conv`` -> ``(enc, enc.0)``."""
    if not node.name.startswith("/"):
        return None
    *scope, last = node.name.split("/")[1:]
    # The last part is an operator's name, though not always this node's: quantisers keep the name.
    return tuple(scope) if all(scope) and re.match(r"[A-Z]", last) else None


def _legacy(nodes: Sequence[onnx.NodeProto], weights: set[str]) -> list[Scope | None]:
    paths = [_legacy_path(node) for node in nodes]
    first: dict[tuple[str, ...], int] = {}
    for index, path in enumerate(paths):
        if path:
            first.setdefault(path, index)
    owners = {weight.rpartition(".")[0] for weight in weights}

    def call_of(path: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        match = _COUNTED.match(path[-1])
        if match is None or dotted(path) in owners:
            return path, 0
        base, call = (*path[:-1], match["base"]), int(match["call"])
        if call >= len(nodes):
            return path, 0
        chain = [base, *((*path[:-1], f"{match['base']}_{k}") for k in range(1, call + 1))]
        order = [first.get(step, -1) for step in chain]
        if -1 in order or order != sorted(order):
            return path, 0
        return base, call

    calls: dict[tuple[str, ...], int] = {}
    keys: list[tuple[tuple[str, ...], int] | None] = []
    for path in paths:
        key = call_of(path) if path else None
        keys.append(key)
        if key is not None:
            calls[key[0]] = max(calls.get(key[0], 1), key[1] + 1)
    scopes: list[Scope | None] = []
    for path, key in zip(paths, keys, strict=True):
        if path is None:
            scopes.append(None)
        elif key is None:
            scopes.append(Scope(""))
        else:
            base, call = key
            parents = tuple(dict.fromkeys(dotted(base[:depth]) for depth in range(1, len(base))))
            scopes.append(Scope(dotted(base), parents, call, calls[base]))
    return scopes


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
        numbers, certain = _calls(indices, chains, classes)
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
    indices: Sequence[int], chains: Sequence[list[str] | None], classes: Sequence[list[str] | None]
) -> tuple[list[int], bool]:
    """Number the calls that one module's nodes belong to; False where that is a guess."""
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
        new = position > 0 and index != indices[position - 1] + 1
        runs.append(runs[-1] + 1 if new else (runs[-1] if runs else 0))
    whole = len(set(runs)) == 1 and len(bases) == len(order)
    return runs, whole


def read_scopes(nodes: Sequence[onnx.NodeProto], weights: set[str]) -> list[Scope | None]:
    """The scope of every node, None where nothing was recorded.

    Arguments:
        nodes: The nodes of the graph, in order.
        weights: Names of the stored tensors; ``relu_1`` is a second call of ``relu`` only where no
            weight says that a module of that name exists.
    """
    recorded = _dynamo(nodes)
    guessed = _legacy(nodes, weights)
    return [found if found is not None else guess for found, guess in zip(recorded, guessed, strict=True)]
