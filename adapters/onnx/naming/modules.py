"""Which tensors of a graph are the outputs of the modules that the exporter recorded."""

from __future__ import annotations

from collections.abc import Sequence

from ctinv.adapters.onnx.graph.trace import Trace

from .scopes import Scope, metadata

__all__ = ["RULE", "module_outputs", "unwrapped"]

RULE = "pkg.onnxscript.rewriter.rule_name"


def unwrapped(module: str) -> str:
    """A module's name without the prefixes of DataParallel and torch.compile."""
    parts = module.split(".")
    while len(parts) > 1 and parts[0] in ("module", "_orig_mod"):
        parts = parts[1:]
    return ".".join(parts)


class _Members:
    """The nodes of each call of each module."""

    def __init__(self, trace: Trace, scopes: Sequence[Scope | None]) -> None:
        self._trace = trace
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

    def output(self, members: set[int], single: bool) -> str:
        """The one tensor that leaves a set of nodes; empty where it is not one.

        An optimiser that merged operations of neighbouring modules may have taken the last one of
        this module away, unless the module has only one.
        """
        trace, found = self._trace, []
        for index in sorted(members):
            for name in trace.nodes[index].output:
                users = trace.users.get(name, ())
                outside = [user for user in users if user not in members]
                if name not in trace.from_image or not (outside or name in self._finals):
                    continue
                if not single and any(metadata(trace.nodes[user], RULE) for user in outside):
                    return ""
                found.append(name)
        return found[0] if len(found) == 1 else ""


def module_outputs(
    trace: Trace, scopes: Sequence[Scope | None]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Tensors that are surely the output of a module, by tensor.

    Returns:
        The module whose own operation made the tensor (``relu@1`` for a second call), and the
        modules around that return the same tensor.
    """
    members = _Members(trace, scopes)
    names: dict[str, str] = {}
    around: dict[str, list[str]] = {}
    for (module, call), own in members.own.items():
        scope = scopes[min(own)]
        if scope is None or not scope.certain or not members.is_leaf(module):
            continue
        if out := members.output(own, scope.single):
            names[out] = unwrapped(module) + (f"@{call}" if scope.calls > 1 else "")
    for module, nodes in sorted(members.all.items(), key=lambda item: -len(item[0])):
        if module in members.unsure or members.is_leaf(module) or not (out := members.output(nodes, False)):
            continue
        maker = scopes[trace.producer[out]]
        if maker is not None and maker.module == module and out not in names:
            names[out] = unwrapped(module)
        else:
            around.setdefault(out, []).append(unwrapped(module))
    return names, around
