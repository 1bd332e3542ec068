"""The table of layers of an ONNX graph: one name that is true of each tensor, and its other names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx

from ._onnx_file import inner_graphs
from ._onnx_prune import Wanted
from ._onnx_scopes import Scope, read_scopes
from ._onnx_trace import Trace

__all__ = ["Entry", "layer_table"]

_FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
}
_RULE = "pkg.onnxscript.rewriter.rule_name"
_ANONYMOUS = re.compile(r"^(onnx::\w+_)?\d+$")
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "PRelu", "BatchNormalization", "InstanceNormalization"}


@dataclass
class Entry:
    """One line of the table: where to read a layer and what it is called."""

    op: str
    want: Wanted | None
    node: str = ""
    module: str = ""
    name: str = ""
    aliases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    index: int = -1

    @property
    def tensor(self) -> str:
        """The graph tensor that is read; empty where nothing can be."""
        return self.want.tensor if self.want else ""

    @property
    def note(self) -> str:
        """All that a reader must know, on one line."""
        return "; ".join(dict.fromkeys(self.notes))


def _unwrapped(module: str) -> str:
    parts = module.split(".")
    while len(parts) > 1 and parts[0] in ("module", "_orig_mod"):
        parts = parts[1:]
    return ".".join(parts)


def _module_names(
    trace: Trace, scopes: Sequence[Scope | None]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Tensors that are a module's output: their module name, and names of modules around."""
    leaf: dict[tuple[str, int], set[int]] = {}
    tree: dict[str, set[int]] = {}
    unsure: set[str] = set()
    for index, scope in enumerate(scopes):
        if scope is None or not scope.module:
            continue
        leaf.setdefault((scope.module, scope.call), set()).add(index)
        for module in (*scope.parents, scope.module):
            tree.setdefault(module, set()).add(index)
            if scope.calls > 1 or not scope.certain:
                unsure.add(module)
    finals = {value.name for value in trace.model.graph.output}

    def leaving(members: set[int]) -> list[str]:
        made = [
            name
            for index in sorted(members)
            for name in trace.nodes[index].output
            if name in trace.from_image
        ]
        return [
            name
            for name in made
            if name in finals or any(u not in members for u in trace.users.get(name, ()))
        ]

    names: dict[str, str] = {}
    around: dict[str, list[str]] = {}
    for (module, call), members in leaf.items():
        scope = scopes[min(members)]
        if scope is None or tree[module] != {i for (m, _), s in leaf.items() if m == module for i in s}:
            continue
        if not scope.certain:
            continue
        out = leaving(members)
        if len(out) == 1:
            names[out[0]] = _unwrapped(module) + (f"@{call}" if scope.calls > 1 else "")
    for module, members in sorted(tree.items(), key=lambda item: -len(item[0])):
        if module in unsure or (module, 0) in leaf and tree[module] == leaf[module, 0]:
            continue
        out = leaving(members)
        if len(out) != 1:
            continue
        own = scopes[trace.producer[out[0]]]
        if own is not None and own.module == module and out[0] not in names:
            names[out[0]] = _unwrapped(module)
        else:
            around.setdefault(out[0], []).append(_unwrapped(module))
    return names, around


def _weight_owner(node: onnx.NodeProto, trace: Trace) -> str:
    """The module that a node's weight is named after."""
    if node.op_type not in _WEIGHTED or len(node.input) < 2:
        return ""
    owner, _, kind = node.input[1].rpartition(".")
    return owner if kind == "weight" and node.input[1] in trace.stored else ""


def _rewriter(node: onnx.NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == _RULE), "")


def _folded(node: onnx.NodeProto, trace: Trace, legacy: bool) -> bool:
    """Whether a batch norm has been folded into this node's weights."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return False
    if "BatchNorm" in _rewriter(node):
        return True
    bias = node.input[2] if len(node.input) > 2 else ""
    if legacy and bias in trace.stored:
        return bool(_ANONYMOUS.match(bias)) and bool(_ANONYMOUS.match(node.input[1]))
    return False


def _inside(node: onnx.NodeProto, outer: str) -> Iterator[Entry]:
    """What cannot be read because it lives in a subgraph."""
    for inner in inner_graphs(node):
        for child in inner.node:
            if child.op_type in ("Constant", "Identity") and not child.name:
                continue
            outputs = [name for name in child.output if name]
            yield from _inside(child, outer)
            yield Entry(
                child.op_type,
                None,
                node=child.name,
                name=child.name or next(iter(outputs), ""),
                aliases=outputs,
                notes=[
                    f"it is computed inside the {node.op_type} node {outer!r}, whose own output can be read"
                ],
            )


def layer_table(trace: Trace) -> list[Entry]:
    """Every place of a graph that depends on the image, in execution order.

    The name is the module's where exactly one tensor can be that module's output (``relu@1`` for a
    second call), else the node's where no other node has it, else the tensor's. The other forms
    are aliases, unless they would say something untrue.
    """
    scopes = read_scopes(trace.nodes, set(trace.stored))
    modules, around = _module_names(trace, scopes)
    entries: list[Entry] = []
    for index, (node, scope) in enumerate(zip(trace.nodes, scopes, strict=True)):
        if not any(name in trace.from_image for name in node.output):
            continue
        outer = node.name or next(iter(node.output))
        entries.extend(_inside(node, outer))
        tensors = [n for n in node.output if n in trace.from_image and trace.types.get(n, 1) in _FLOATS]
        for position, tensor in enumerate(tensors):
            key = f"[{position}]" if len(tensors) > 1 else ""
            entry = Entry(node.op_type, Wanted(tensor), index=index)
            entry.node = f"{node.name}{key}" if node.name else ""
            entry.module = modules.get(tensor, "")
            entry.aliases = [entry.node, tensor, *around.get(tensor, ())]
            entries.extend(_describe(entry, node, scope, trace))
            entries.append(entry)
    _name_all(entries, trace)
    return entries


def _describe(entry: Entry, node: onnx.NodeProto, scope: Scope | None, trace: Trace) -> list[Entry]:
    """Say what was merged into a node; returns the layers that no longer exist because of it."""
    gone: list[Entry] = []
    owner = _weight_owner(node, trace)
    recorded = bool(_rewriter(node)) or any("name_scopes" in p.key for p in node.metadata_props)
    if _folded(node, trace, legacy=not recorded):
        own = entry.module
        if recorded:
            lost = _unwrapped(owner) if owner != own else ""
        else:
            lost, entry.module = own, f"{own}+bn" if own else ""
        entry.notes.append(f"post-BN: a batch norm is folded into {lost or 'its weights'}")
        if lost:
            there = entry.module or entry.node or entry.tensor
            note = f"a batch norm was folded into it at export; {there!r} is the output after the batch norm"
            gone.append(Entry(node.op_type, None, module=lost, notes=[note]))
    elif not recorded and owner and not entry.module and re.fullmatch(rf"{node.op_type}_\d+", node.name):
        entry.aliases.append(_unwrapped(owner))
    if len(node.input) > 2 and re.search(r"batch_?norm", node.input[2]) and node.op_type == "Conv":
        entry.notes.append(f"post-BN: its bias {node.input[2]!r} comes from a batch norm")
    if "SuccessiveRelu" in _rewriter(node):
        entry.notes.append("successive ReLUs were merged here at export, so calls may be numbered otherwise")
    return gone


def _name_all(entries: list[Entry], trace: Trace) -> None:
    """Give each entry a name of its own, then drop aliases that mean another entry."""
    counts: dict[str, int] = {}
    for entry in entries:
        for name in {entry.module, entry.node}:
            counts[name] = counts.get(name, 0) + 1
    taken: set[str] = set()
    for entry in sorted(entries, key=lambda e: not e.module):
        options = [entry.module, entry.node if counts[entry.node] == 1 else "", entry.name, entry.tensor]
        free = [name for name in options if name and name not in taken and not name.startswith("@")]
        # a node may bear the name of another's tensor, so the last resort is made up
        entry.name = free[0] if free else f"{entry.op}#{entry.index}"
        while entry.name in taken:
            entry.name += "'"
        taken.add(entry.name)
    bases = {name.partition("@")[0] for name in taken}
    seen: dict[str, int] = {}
    for entry in entries:
        for alias in {a for a in entry.aliases if a}:
            seen[alias] = seen.get(alias, 0) + 1
    for entry in entries:
        entry.aliases = [
            alias
            for alias in dict.fromkeys(entry.aliases)
            if alias and alias != entry.name and alias not in bases and seen[alias] == 1
        ]
