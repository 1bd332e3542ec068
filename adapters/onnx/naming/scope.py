"""The module call that a node comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scope", "dotted"]


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
        note: What a reader must know about the name; empty if nothing.
    """

    module: str
    parents: tuple[str, ...] = ()
    call: int = 0
    calls: int = 1
    certain: bool = True
    single: bool = False
    note: str = ""


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
