"""Operators of ONNX in PyTorch that choose between subgraphs, or repeat one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .ops import Node, NotPlainError, Operator, operator
from .program import Branch

__all__: list[str] = []


@operator("If")
def _if(node: Node) -> Operator:
    yes, no = (Branch(node.get(f"{name}_branch"), node.opset, node.around) for name in ("then", "else"))

    def run(condition: Tensor, *around: Any) -> tuple[Any, ...]:
        chosen = yes if bool(condition) else no
        return tuple(chosen([], dict(zip(node.around, around, strict=True))))

    return run


@operator("Loop")
def _loop(node: Node) -> Operator:
    body = Branch(node.get("body"), node.opset, node.around)
    carried = len(body.inputs) - 2

    def run(limit: Tensor | None, condition: Tensor | None, *rest: Any) -> tuple[Any, ...]:
        values, around = list(rest[:carried]), dict(zip(node.around, rest[carried:], strict=True))
        if len(values) != carried or any(not isinstance(value, Tensor) for value in values):
            raise NotPlainError("a loop over what are no tensors")
        gathered: list[list[Tensor]] = [[] for _ in body.outputs[1 + carried :]]
        count, go = 0, condition is None or bool(condition)
        while go and (limit is None or count < int(limit)):
            flag = torch.tensor(go)
            more, *made = body([torch.tensor(count), flag, *values], around)
            values, go, count = made[:carried], bool(more), count + 1
            for kept, value in zip(gathered, made[carried:], strict=True):
                kept.append(value)
        if any(not kept for kept in gathered):
            raise NotPlainError("a loop that never runs")
        return (*values, *(torch.stack(kept) for kept in gathered))

    return run
