"""Which module made a node, as far as the names of PyTorch's older exporter tell.

A node is named after the modules whose ``forward`` was at work, ``/enc/enc.0/Conv``, and after the n-th
node of one such name, ``/enc/enc.0_1/Conv``. A module that lies in a container which never runs itself, as
``nn.ModuleDict`` does not, appears by its own key alone: two modules of one key are then numbered like
two calls of one. The names of weights are whole. They settle whose a node is, and of the rest they tell
whether the names can be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

from .scope import Scope, dotted

__all__ = ["legacy_scopes"]

Path = tuple[str, ...]

_COUNTED = re.compile(r"^(?P<base>.+)_(?P<call>[1-9]\d*)$")
_SAME_KEY = (
    "its calls are numbered as the export did, which counts modules of the same key in other containers along"
)


def legacy_scopes(nodes: Sequence[onnx.NodeProto], weights: set[str]) -> list[Scope | None]:
    """The scope of every node; None where nothing was recorded.

    Arguments:
        nodes: The nodes of the graph, in order; of their operands, those that do not depend on the image.
        weights: Names of the stored tensors.
    """
    paths = [_path(node) for node in nodes]
    names = _Names(nodes, paths, {weight.rpartition(".")[0] for weight in weights})
    return [None if path is None else names.scope(path) if path else Scope("") for path in paths]


def _path(node: onnx.NodeProto) -> Path | None:
    """Scope parts of a node's name, ``/enc/enc.0/Conv`` -> ``(enc, enc.0)``."""
    if not node.name.startswith("/"):
        return None
    *scope, last = node.name.split("/")[1:]
    # The last part is an operator's name, though not always this node's: quantisers keep the name.
    return tuple(scope) if all(scope) and re.match(r"[A-Z]", last) else None


def _keys(path: Path) -> list[str]:
    """What each part of a path adds to the name: ``(mid.0, mid.0.1)`` -> ``mid.0``, ``1``."""
    before = ["", *path]
    return [part.removeprefix(f"{last}.") if last else part for last, part in zip(before, path, strict=False)]


def _owners(node: onnx.NodeProto) -> set[str]:
    """The modules that a node's stored operands are named after."""
    owners = {name.rpartition(".")[0] for name in node.input if "/" not in name and "::" not in name}
    return owners - {""}


def _within(keys: Sequence[str], owner: str) -> list[set[str]]:
    """For each key the modules that it may be, where all lie in this order within an owner's name.

    Empty where they do not, the last one at its end.

    Example:
        >>> _within(["s", "conv"], "l.2.s.d.conv")
        [{'l.2.s'}, {'l.2.s.d.conv'}]
    """
    parts, spans = owner.split("."), [key.split(".") for key in keys]
    ends = [{0}]
    for span in spans:
        least, size = min(ends[-1]) + len(span), len(span)
        ends.append({stop for stop in range(least, len(parts) + 1) if parts[stop - size : stop] == span})
        if not ends[-1]:
            return []
    if len(parts) not in ends[-1]:
        return []
    ends[-1] = {len(parts)}
    for place in range(len(spans) - 1, 0, -1):
        latest = max(ends[place + 1]) - len(spans[place])
        ends[place] = {stop for stop in ends[place] if stop <= latest}
    return [{".".join(parts[:stop]) for stop in stops} for stops in ends[1:]]


class _Names:
    """The true names behind the paths of one graph."""

    def __init__(
        self, nodes: Sequence[onnx.NodeProto], paths: Sequence[Path | None], known: set[str]
    ) -> None:
        self._known = known
        self._first: dict[Path, int] = {}
        owners: dict[Path, set[str]] = {}
        for index, (node, path) in enumerate(zip(nodes, paths, strict=True)):
            if path:
                self._first.setdefault(path, index)
                owners.setdefault(path, set()).update(_owners(node))
        self._base: dict[Path, tuple[Path, int]] = {}
        self._own: dict[Path, set[str]] = {}
        self._takers: dict[str, list[Path]] = {}
        self._possible: dict[Path, set[str]] = {(): {""}}
        for path in self._first:
            self._settle(path, owners[path])
        self._bare = self._bare_keys()
        self._calls = self._numbered()

    def _settle(self, path: Path, owners: set[str]) -> None:
        """Find what a path is a call of, and whose weights its nodes take."""
        base, own = (path, 0), {name for name in owners if _within(_keys(path), name)}
        if not own:
            base = self._call_of(path)
            own = {name for name in owners if _within(_keys(base[0]), name)}
        self._base[path], self._own[path] = base, own
        for name in own:
            self._takers.setdefault(name, []).append(path)
            for depth, paths in enumerate(_within(_keys(base[0]), name), 1):
                self._possible.setdefault(base[0][:depth], set()).update(paths)

    def _call_of(self, path: Path) -> tuple[Path, int]:
        match = _COUNTED.match(path[-1])
        if match is None or dotted(path) in self._known:
            return path, 0
        call = int(match["call"])
        if call >= len(self._first):
            return path, 0
        base = (*path[:-1], match["base"])
        chain = [base, *((*path[:-1], f"{match['base']}_{k}") for k in range(1, call + 1))]
        order = [self._first.get(step, -1) for step in chain]
        return (path, 0) if -1 in order or order != sorted(order) else (base, call)

    def _bare_keys(self) -> set[Path]:
        """Paths below which some module is written by its key alone."""
        paths = set()
        for path, names in self._possible.items():
            above = self._possible.get(path[:-1], set())
            if path and names != {f"{name}.{_keys(path)[-1]}".lstrip(".") for name in above}:
                paths.add(path[:-1])
        return paths

    def _proven(self, base: Path) -> bool:
        return len(self._possible.get(base, ())) == 1

    def _certain(self, base: Path) -> bool:
        """Whether a path can be taken at its word."""
        return self._proven(base) or (base[:-1] not in self._bare and self._certain(base[:-1]))

    def _candidates(self, base: Path) -> list[str]:
        """Every module that a path may stand for; the likeliest where nothing tells."""
        if base in self._possible:
            return sorted(self._possible[base])
        last = _keys(base)[-1]
        return [f"{name}.{last}".lstrip(".") for name in self._candidates(base[:-1])]

    def _module(self, path: Path) -> tuple[str, bool]:
        """The module whose call a path is, and whether that is sure."""
        base, own = self._base[path][0], self._own[path]
        if own:
            return min(own), len(own) == 1
        candidates = self._candidates(base)
        # Beside calls that a weight proves, one without a weight may be of another module of that key.
        exact = base not in self._possible or candidates == [dotted(base)]
        return candidates[0], len(candidates) == 1 and exact and self._certain(base)

    def _numbered(self) -> dict[Path, tuple[int, int]]:
        """Each path's call of its module, and how many there are."""
        groups: dict[str, list[Path]] = {}
        for path in self._first:  # in the order of the graph
            groups.setdefault(self._module(path)[0], []).append(path)
        return {path: (call, len(group)) for group in groups.values() for call, path in enumerate(group)}

    def _shared(self, path: Path, module: str) -> bool:
        """Whether several modules may hold the weights that a path's nodes take."""
        alike = self._takers[module]
        ways = {dotted(self._base[other][0]) for other in alike}
        return len(ways) > 1 or (len(alike) > 1 and module not in ways)

    def scope(self, path: Path) -> Scope:
        """Where the nodes of a path come from."""
        base = self._base[path][0]
        module, certain = self._module(path)
        call, calls = self._calls[path]
        parents: dict[str, None] = {}
        for depth in range(1, len(base)):
            names = self._candidates(base[:depth])
            within = [name for name in names if self._own[path] and f"{module}.".startswith(f"{name}.")]
            parents.update(dict.fromkeys(within or names))
        if not certain:
            parents.update(dict.fromkeys(name for name in self._candidates(base) if name != module))
        certain = certain and not (self._own[path] and self._shared(path, module))
        note = _SAME_KEY if calls > 1 and not self._own[path] else ""
        return Scope(module, tuple(parents), call, calls, certain, note=note)
