"""Recurrent operators of ONNX in PyTorch, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .ops import Node, NotPlainError, Operator, operator

__all__: list[str] = []

_Cell = Callable[..., tuple[Tensor, ...]]


def _plain(node: Node, activations: list[str]) -> None:
    """Refuse what is seldom set: other activations, clipping, coupled gates."""
    given = [a.decode() if isinstance(a, bytes) else a for a in node.get("activations") or []]
    ways = 2 if node.get("direction", "forward") == "bidirectional" else 1
    if (given and given != activations * ways) or node.get("clip") or node.get("input_forget", 0):
        raise NotPlainError("a recurrent operator with settings of its own")


def _run(node: Node, cell: _Cell, states: int) -> Operator:
    """What runs a cell over time, in one direction or both.

    Arguments:
        node: The operator.
        cell: From a time step, the states, and weights W, R, B (and peepholes) to new states.
        states: How many states it has.
    """
    direction, last = node.get("direction", "forward"), node.get("layout", 0)
    size = node.get("hidden_size")

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, lengths: Tensor | None = None, *rest: Any
    ) -> tuple[Tensor, ...]:
        x = x.transpose(0, 1) if last else x
        if lengths is not None and bool((lengths != x.shape[0]).any()):
            raise NotPlainError("sequences of different lengths")
        given = (*rest, *[None] * 3)[: states + 1]
        ways = w.shape[0]
        start = [
            x.new_zeros(ways, x.shape[1], size) if s is None else (s.transpose(0, 1) if last else s)
            for s in given[:states]
        ]
        bias = w.new_zeros(ways, 2 * w.shape[1]) if b is None else b
        peep = w.new_zeros(ways, 3 * size) if given[states] is None else given[states]
        every, ends = [], []
        for way in range(ways):
            turned = direction == "reverse" or way == 1
            now = tuple(state[way] for state in start)
            outputs = []
            for step in x.flip(0) if turned else x:
                now = cell(step, now, w[way], r[way], bias[way], peep[way])
                outputs.append(now[0])
            whole = torch.stack(outputs)
            every.append(whole.flip(0) if turned else whole)
            ends.append(now)
        y = torch.stack(every, 1)
        finals = [torch.stack(parts) for parts in zip(*ends, strict=True)]
        if last:
            y, finals = y.permute(2, 0, 1, 3), [final.transpose(0, 1) for final in finals]
        return (y, *finals)[: node.outputs]

    return run


@operator("LSTM")
def _lstm(node: Node) -> Operator:
    _plain(node, ["Sigmoid", "Tanh", "Tanh"])

    def cell(
        x: Tensor, now: tuple[Tensor, Tensor], w: Tensor, r: Tensor, b: Tensor, p: Tensor
    ) -> tuple[Tensor, ...]:
        h, c = now
        i, o, f, g = (x @ w.T + h @ r.T + sum(b.chunk(2))).chunk(4, -1)
        pi, po, pf = p.chunk(3)
        c_new = torch.sigmoid(f + pf * c) * c + torch.sigmoid(i + pi * c) * torch.tanh(g)
        return torch.sigmoid(o + po * c_new) * torch.tanh(c_new), c_new

    return _run(node, cell, 2)


@operator("GRU")
def _gru(node: Node) -> Operator:
    _plain(node, ["Sigmoid", "Tanh"])
    linear = node.get("linear_before_reset", 0)

    def cell(x: Tensor, now: tuple[Tensor], w: Tensor, r: Tensor, b: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        (h,) = now
        wz, wr, wh = w.chunk(3)
        rz, rr, rh = r.chunk(3)
        bz, br, bh, cz, cr, ch = b.chunk(6)
        z = torch.sigmoid(x @ wz.T + h @ rz.T + bz + cz)
        reset = torch.sigmoid(x @ wr.T + h @ rr.T + br + cr)
        kept = reset * (h @ rh.T + ch) if linear else (reset * h) @ rh.T + ch
        return ((1 - z) * torch.tanh(x @ wh.T + kept + bh) + z * h,)

    return _run(node, cell, 1)


@operator("RNN")
def _rnn(node: Node) -> Operator:
    _plain(node, ["Tanh"])

    def cell(x: Tensor, now: tuple[Tensor], w: Tensor, r: Tensor, b: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        return (torch.tanh(x @ w.T + now[0] @ r.T + sum(b.chunk(2))),)

    return _run(node, cell, 1)
