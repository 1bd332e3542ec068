"""The table of layers of an ONNX graph: one name that is true of each tensor, and its other names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx
from ctinv.adapters.onnx.graph.prune import Wanted
from ctinv.adapters.onnx.graph.quantisation import Quantised, plain
from ctinv.adapters.onnx.graph.trace import Trace
from ctinv.adapters.onnx.graph.weights import inner_graphs

from .changes import Changes
from .modules import RULE, module_outputs, unwrapped
from .scope import Scope
from .scopes import metadata, read_scopes

__all__ = ["FLOATS", "Entry", "layer_table"]

FLOATS = frozenset(
    (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
)
"""Element types of tensors that can be a representation."""

_ANONYMOUS = re.compile(r"(onnx::\w+_)?\d+")
_LEGACY_TENSOR = re.compile(r"(/.+)_output_\d+")
_ACTIVATION = re.compile(r"(relu|clip|clamp|hardtanh)", re.IGNORECASE)
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "PRelu", "BatchNormalization", "InstanceNormalization"}
_CONVERSIONS = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
_LINEAR = {"Conv", "ConvTranspose", "Gemm", "QLinearConv", "QGemm", "Add", "MatMul", "QLinearAdd"}


@dataclass
class Entry:
    """One line of the table: where to read a layer, what it is called, and what to read instead."""

    op: str
    want: Wanted | None
    tensor: str = ""
    node: str = ""
    module: str = ""
    name: str = ""
    aliases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    instead: Entry | None = None
    counted: bool = False

    @property
    def note(self) -> str:
        """All that a reader must know, on one line."""
        return "; ".join(dict.fromkeys(self.notes))


def layer_table(trace: Trace, changes: Changes) -> list[Entry]:
    """Every place of a graph that depends on the image, in execution order.

    The name is the module's where exactly one tensor can be that module's output (``relu@1`` for a
    second call), else the node's where no other node has it, else the tensor's. The other forms
    are aliases, unless they would say something untrue.

    Arguments:
        trace: The graph.
        changes: What was done to it after its export.
    """
    return _Table(trace, changes).entries


def _inside(node: onnx.NodeProto, outer: str) -> Iterator[Entry]:
    """What cannot be read because it lives in a subgraph."""
    for inner in inner_graphs(node):
        for child in inner.node:
            outputs = [name for name in child.output if name]
            yield from _inside(child, outer)
            if child.op_type == "Constant" or not outputs:
                continue
            note = f"it is computed inside the {node.op_type} node {outer!r}, whose own output can be read"
            yield Entry(child.op_type, None, outputs[0], child.name, aliases=outputs, notes=[note])


class _Table:
    """Builds the entries of one graph."""

    def __init__(self, trace: Trace, changes: Changes) -> None:
        self._trace = trace
        self._quantised = Quantised(trace)
        self._changes = changes
        self._absorbed: dict[int, str] = {}
        self._renumbered: set[str] = set()  # modules, calls of which were merged
        self._scopes, self._lost = self._read_scopes()
        self._modules, self._around = module_outputs(trace, self._scopes, self._changes)
        self.entries: list[Entry] = []
        for index, node in enumerate(trace.nodes):
            outputs = [name for name in node.output if name in trace.from_image]
            if outputs:
                inside = list(_inside(node, node.name or outputs[0]))
                self.entries.extend(inside)
                self._add(index, node, outputs)
                for entry in inside:
                    entry.instead = self.entries[-1] if self.entries[-1].want else None
        self._lead_out_of_blocks()
        self._settle_names()

    def _read_scopes(self) -> tuple[list[Scope | None], dict[int, Scope | None]]:
        """Scopes of the nodes, by what they return, and of those whose own output is gone."""
        stand_ins: list[onnx.NodeProto] = []
        places: list[tuple[int, bool]] = []
        known = {self._changes.exported_as(index) for index in range(len(self._trace.nodes))}
        for index, node in enumerate(self._trace.nodes):
            name, own = self._renamed(node), _plain_node(node.name)
            if name:
                self._absorbed[index] = name
            elif node.op_type in _CONVERSIONS or self._changes.blocked & set(node.output):
                own = ""  # named after tensors, these would pass for parts of modules
                name = _before_blocks(node.name)
                name = "" if name in known else name  # counted where its output leaves the blocks
            else:
                name = self._changes.exported_as(index).removesuffix("_quant")
            operands = [plain(name) for name in node.input if name and name not in self._trace.from_image]
            gone = bool(own) and (own != name or bool(self._changes.suffix(index)))
            for title, bare in ((own, True), (name, False)) if gone else ((name, False),):
                stand_in = onnx.NodeProto(name=title, input=operands)
                if bare == gone:  # what the exporter recorded is of the node as it was
                    stand_in.metadata_props.extend(node.metadata_props)
                stand_ins.append(stand_in)
                places.append((index, bare))
        read = read_scopes(stand_ins, set(self._trace.stored))
        scopes: list[Scope | None] = [None] * len(self._trace.nodes)
        lost: dict[int, Scope | None] = {}
        for (index, gone), scope in zip(places, read, strict=True):
            if gone:
                lost[index] = scope
            else:
                scopes[index] = scope
        return scopes, lost

    def _lead_out_of_blocks(self) -> None:
        """Say where next to read what is kept in blocks of channels."""
        plain_ones = {entry.tensor: entry for entry in self.entries if entry.want}
        for entry in self.entries:
            if entry.tensor not in self._changes.blocked:
                continue
            after = (plain_ones[name] for name in self._changes.beyond([entry.tensor]) if name in plain_ones)
            entry.instead = next(after, None)

    def _rectified(self, tensor: str) -> bool:
        """Whether nothing but a ReLU reads a tensor: optimisers leave one of several in a row."""
        users = self._trace.users.get(tensor, ())
        return bool(users) and all(self._trace.nodes[user].op_type == "Relu" for user in users)

    def _clipped(self, node: onnx.NodeProto) -> bool:
        """Whether quantisation lets nothing negative out of a linear operator: it is a ReLU as well."""
        want = self._quantised.wanted(node.output[0]) if node.op_type in _LINEAR and node.output else None
        return want is not None and bool(want.scale) and self._quantised.clips_at_zero(want)

    def _renamed(self, node: onnx.NodeProto) -> str:
        """The activation that was absorbed into a node, where its output is named after it."""
        if not self._clipped(node):
            return ""
        tensor = plain(node.output[0])
        legacy = _LEGACY_TENSOR.fullmatch(tensor)
        name = legacy[1] if legacy else tensor
        if not _ACTIVATION.search(name.rpartition("/")[2]):
            return ""
        return name if name != _plain_node(node.name) else ""

    def _add(self, index: int, node: onnx.NodeProto, outputs: list[str]) -> None:
        trace, quantised = self._trace, self._quantised
        wants: dict[str, Wanted] = {}
        for tensor in outputs:
            if tensor in self._changes.blocked:
                note = "ONNX Runtime keeps it in blocks of channels here"
                self.entries.append(
                    Entry(node.op_type, None, tensor, node.name, notes=[note], counted=_counts(node))
                )
                continue
            want = quantised.wanted(tensor)
            if want is None or quantised.stands_for(tensor):
                continue
            if tensor in quantised.scales or trace.types.get(tensor, onnx.TensorProto.FLOAT) in FLOATS:
                wants[tensor] = want
        for position, (tensor, want) in enumerate(wants.items()):
            key = f"[{position}]" if len(wants) > 1 else ""
            entry = Entry(node.op_type, want, tensor)
            entry.node = f"{node.name}{key}" if node.name else ""
            entry.module = self._modules.get(tensor, "")
            if entry.module and (scope := self._scopes[index]) and scope.note:
                entry.notes.append(scope.note)
            entry.aliases = [entry.node, tensor, tensor.removesuffix(":0")]
            if index in self._absorbed or not self._clipped(node):
                entry.aliases.append(plain(tensor))
            entry.aliases += [*self._around.get(tensor, ()), *quantised.forms(want)]
            if want.scale:
                entry.notes.append("quantised, read dequantised")
            self._describe(entry, index, node)
            if (around := self._around.get(tensor)) and self._rectified(tensor):
                entry.notes.append(
                    f"{around[0]} ends here too, unless a ReLU of its own was merged into the next one"
                )
            if entry.module and (reader := self._changes.takes_in(tensor)):
                entry.notes.append(
                    f"{reader} was merged with something after the export; if that was the layer's last "
                    "operation, the layer is read before it"
                )
            self.entries.append(entry)

    def _describe(self, entry: Entry, index: int, node: onnx.NodeProto) -> None:
        """Say what was merged into a node, and list what no longer exists because of it."""
        rule = metadata(node, RULE)
        owner = unwrapped(_weight_owner(node, self._trace))
        if index in self._absorbed:
            scope = self._lost[index]
            lost = _called(scope) if scope else ""
            entry.name = self._absorbed[index]
            there = entry.module or entry.name
            entry.notes.append(
                f"the activation was absorbed into {node.op_type} {node.name!r} at quantisation"
            )
            if lost:
                self._lose(entry, lost, f"the activation {there!r} was absorbed into it at quantisation")
        elif self._clipped(node):
            lost, there = entry.module, entry.module and f"{entry.module}+relu"
            entry.module = there
            entry.notes.append("quantisation lets no negative value through: a ReLU was absorbed")
            if lost:
                self._lose(
                    entry, lost, f"a ReLU was absorbed into it at quantisation; {there!r} comes after it"
                )
        elif self._merged(entry, index, node) or self._doubted(entry, index, node):
            pass
        elif _folded(node, self._trace, rule):
            lost = owner if rule else entry.module
            if not rule and entry.module:
                entry.module += "+bn"
            entry.notes.append(f"post-BN: a batch norm is folded into {lost or 'its weights'}")
            there = entry.module or entry.node or entry.tensor
            if lost and lost != there:
                note = (
                    f"a batch norm was folded into it at export; {there!r} is the output after the batch norm"
                )
                self._lose(entry, lost, note)
        elif owner and re.fullmatch(rf"{node.op_type}_\d+", node.name) and not self._changes.by:
            entry.aliases.append(owner)
        called, merged = entry.module.partition("@")[0], "SuccessiveRelu" in rule
        if merged and called:
            self._renumbered.add(called)
        if merged or called in self._renumbered:
            entry.notes.append(
                "successive ReLUs were merged at export, so its calls may be numbered otherwise"
            )

    def _merged(self, entry: Entry, index: int, node: onnx.NodeProto) -> bool:
        """Describe a node that does more than the one that it is named after; False for others."""
        changes = self._changes
        suffix = changes.suffix(index)
        if not suffix and not changes.replaced(index):
            return False
        scope, own = self._lost.get(index), _plain_node(node.name)
        lost = (_called(scope) if scope else "") or unwrapped(_bias_owner(node, self._trace))
        if node.op_type == "ReorderOutput":
            entry.notes.append(
                "its weights are kept in blocks of channels and cannot be told by name; the layer is what "
                "its name says where nothing was folded into it before"
            )
        if entry.node != entry.tensor:
            entry.aliases = [alias for alias in entry.aliases if alias != entry.node]
        untrue = []
        if own.startswith("/") and changes.exported_as(index) == own and suffix:
            untrue, entry.aliases = [own, *entry.aliases], []
        entry.node = changes.exported_as(index) if changes.replaced(index) else ""
        entry.aliases.append(entry.node)
        base = "+bn" if _folded(node, self._trace, "") else ""
        if lost and suffix and lost != entry.module:
            entry.aliases.append(entry.module)
            entry.module = f"{lost}{base}{suffix}"
        there = entry.module or entry.node or entry.tensor
        what = "what follows" if not suffix else suffix.lstrip("+").replace("+", " and ")
        if lost and lost != entry.module:
            note = f"{what} was merged into it after the export; {there!r} comes after that"
            self._lose(entry, lost, note, node.op_type.removeprefix("Fused"), untrue)
        elif not lost and suffix and _usable(own) and own not in (there, entry.node):
            note = f"{what} was merged into it after the export; {there!r} comes after that"
            self._lose(entry, own, note, node.op_type.removeprefix("Fused"), [own.removeprefix("node_")])
        if suffix:
            entry.notes.append(f"{what} was merged into {node.op_type} after the export")
        return True

    def _doubted(self, entry: Entry, index: int, node: onnx.NodeProto) -> bool:
        """Describe a node whose weights are not those of its name; False for others."""
        reason = self._changes.doubt(index)
        if not reason:
            return False
        scope = self._scopes[index]
        module = _called(scope) if scope and scope.module else ""
        lost = module or node.name or entry.tensor
        entry.module = f"{lost}{self._changes.suffix(index) or '+folded'}"
        entry.notes.append(reason)
        self._lose(entry, lost, reason, node.op_type, entry.aliases)
        entry.aliases, entry.node = [], ""
        return True

    def _lose(self, entry: Entry, module: str, note: str, op: str = "", aliases: Sequence[str] = ()) -> None:
        """List a module whose own output no longer exists."""
        lost = Entry(op or entry.op, None, module=module, aliases=list(aliases), notes=[note], instead=entry)
        lost.counted = bool(op) and op != entry.op
        self.entries.append(lost)

    def _settle_names(self) -> None:
        """Give each entry a name of its own, then drop aliases that mean another entry."""
        nodes = Counter(entry.node for entry in self.entries)
        taken: set[str] = set()
        for number, entry in enumerate(sorted(self.entries, key=lambda e: not e.module)):
            own = entry.node if nodes[entry.node] == 1 else ""
            options = (entry.module, entry.name, own, entry.tensor)
            entry.name = next((n for n in options if _usable(n) and n not in taken), f"{entry.op}#{number}")
            while entry.name in taken:
                entry.name += "'"
            taken.add(entry.name)
        reserved = taken | {entry.module.partition("@")[0] for entry in self.entries}
        meanings = Counter(alias for entry in self.entries for alias in set(entry.aliases))
        for entry in self.entries:
            entry.aliases = [
                alias
                for alias in dict.fromkeys(entry.aliases)
                if _usable(alias) and alias not in reserved and meanings[alias] == 1
            ]


def _usable(name: str) -> bool:
    """Whether a name can be written on one line and means nothing else."""
    return bool(name) and name.isprintable() and name == name.strip() and not name.startswith("@")


def _before_blocks(name: str) -> str:
    """What a node was called before ONNX Runtime put it into blocks of channels; calls are counted by it."""
    made = re.fullmatch(r"(/.+)_output_\d+_nchwc", name)
    return made[1] if made else ""


def _plain_node(name: str) -> str:
    return re.sub(r"/\w+Fusion$", "", name.removesuffix("_quant"))


def _counts(node: onnx.NodeProto) -> bool:
    """Whether an operator is a convolution or the like, which users count."""
    return node.op_type in _WEIGHTED


def _bias_owner(node: onnx.NodeProto, trace: Trace) -> str:
    """The module whose bias a contrib operator adds before it goes on."""
    if node.op_type not in ("BiasGelu", "FastGelu") or len(node.input) < 2:
        return ""
    owner, _, kind = node.input[1].rpartition(".")
    return owner if kind == "bias" and node.input[1] in trace.stored else ""


def _called(scope: Scope) -> str:
    return unwrapped(scope.module) + (f"@{scope.call}" if scope.calls > 1 else "")


def _weight_owner(node: onnx.NodeProto, trace: Trace) -> str:
    """The module that a node's weight is named after."""
    if node.op_type not in _WEIGHTED or len(node.input) < 2:
        return ""
    owner, _, kind = node.input[1].rpartition(".")
    return owner if kind == "weight" and node.input[1] in trace.stored else ""


def _folded(node: onnx.NodeProto, trace: Trace, rule: str) -> bool:
    """Whether a batch norm has been folded into this node's weights."""
    if node.op_type not in ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "Gemm"):
        return False
    if "BatchNorm" in rule:
        return True
    bias = node.input[2] if len(node.input) > 2 else ""
    if re.search(r"batch_?norm", bias, re.IGNORECASE):
        return True
    if bias not in trace.stored or trace.model.producer_name != "pytorch" or not node.name:
        return False
    # The TorchScript exporter gives names of its own to weights that it computed.
    return bool(_ANONYMOUS.fullmatch(bias)) and bool(_ANONYMOUS.fullmatch(node.input[1]))
