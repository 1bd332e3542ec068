"""Attention as ONNX defines it, in PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .ops import _TYPES, Node, NotPlainError, Operator, operator

__all__: list[str] = []


def _heads(x: Tensor, count: int) -> Tensor:
    """Tokens (B, L, H * D) to heads (B, H, L, D)."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _bias(mask: Tensor | None, like: Tensor, length: int) -> Tensor:
    """What a mask adds to the scores; it may be shorter than the keys."""
    if mask is None:
        return like.new_zeros(())
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, -math.inf).to(like.dtype)
    lacking = length - mask.shape[-1]
    return torch.nn.functional.pad(mask, [0, lacking], value=-math.inf) if lacking > 0 else mask


def _allowed(
    sizes: tuple[int, int], offset: Any, reach: tuple[int, int, int], device: torch.device
) -> Tensor:
    """Which key each query may look at, (..., queries, keys).

    Arguments:
        sizes: Numbers of queries and keys.
        offset: How many keys precede the first query; a tensor (B, 1, 1, 1) where that differs.
        reach: Whether later keys are out (0 for yes), and how far to look back and ahead; -1 for anywhere.
        device: Where to put the result.
    """
    late, left, right = reach
    apart = torch.arange(sizes[0], device=device)[:, None] + offset - torch.arange(sizes[1], device=device)
    kept = torch.ones_like(apart, dtype=torch.bool)
    if late == 0:
        kept &= apart >= 0
    if left >= 0:
        kept &= apart <= left
    if right >= 0:
        kept &= -apart <= right
    return kept


@operator("Attention")
def _attention(node: Node) -> Operator:
    attributes = ("is_causal", "softcap", "qk_matmul_output_mode", "left_window_size", "right_window_size")
    causal, cap, mode, left, right = (node.get(name) for name in attributes)
    left, right, mode = (-1 if left is None else left), (-1 if right is None else right), mode or 0
    precision = node.get("softmax_precision")
    if precision is not None and precision not in _TYPES:
        raise NotPlainError(f"a softmax of type {precision}")

    def run(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        past_key: Tensor | None = None,
        past_value: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        if q.dtype == torch.float16:  # rounded otherwise from one runtime to the next
            raise NotPlainError("attention in half precision")
        tokens = q.ndim == 3
        if tokens:
            q, k = _heads(q, node.get("q_num_heads")), _heads(k, node.get("kv_num_heads"))
            v = _heads(v, node.get("kv_num_heads"))
        if past_key is not None and past_value is not None:
            k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
        present = (k, v)
        queries, keys = q.shape[2], k.shape[2]
        bias = _bias(mask, q, keys)
        if causal or left >= 0 or right >= 0:
            offset: Any = 0 if past_key is None else past_key.shape[2]
            if lengths is not None:
                offset = (lengths.reshape(-1) - queries).reshape(-1, 1, 1, 1)
            kept = _allowed((queries, keys), offset, (-1 if not causal else 0, left, right), q.device)
            bias = bias + torch.where(kept, 0.0, -math.inf).to(q.dtype)
        if lengths is not None:
            inside = torch.arange(keys, device=q.device) < lengths.reshape(-1, 1, 1, 1)
            bias = bias + torch.where(inside, 0.0, -math.inf).to(q.dtype)
        if q.shape[1] != k.shape[1]:
            times = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        scale = math.sqrt(node.get("scale") or 1 / math.sqrt(q.shape[3]))
        scores = (q * scale) @ (k * scale).transpose(-2, -1)
        plain = scores
        if cap:
            scores = torch.tanh(scores / cap) * cap
        capped, scores = scores, scores + bias
        logits = scores.to(_TYPES[precision]) if precision is not None else scores
        # A query that may look at nothing sees nothing.
        blind = torch.isneginf(bias.expand(scores.shape).amax(-1, keepdim=True))
        weights = torch.where(blind, 0.0, logits.masked_fill(blind, 0.0).softmax(-1)).to(q.dtype)
        y = weights @ v
        if tokens:
            y = y.transpose(1, 2).flatten(2)
        shown = (plain, capped, scores, weights)[mode]
        return (y, *present, shown)[: node.outputs]

    return run


@operator("RotaryEmbedding")
def _rotary(node: Node) -> Operator:
    def run(x: Tensor, cosine: Tensor, sine: Tensor, position: Tensor | None = None) -> Tensor:
        tokens = x.ndim == 3
        turned = x.reshape(x.shape[0], x.shape[1], node.get("num_heads"), -1) if tokens else x.transpose(1, 2)
        size = node.get("rotary_embedding_dim") or turned.shape[-1]
        own, rest = turned[..., :size], turned[..., size:]
        if position is not None:
            cosine, sine = cosine[position], sine[position]
        cosine, sine = cosine.unsqueeze(2), sine.unsqueeze(2)
        if node.get("interleaved", 0):
            a, b = own[..., 0::2], own[..., 1::2]
            both = torch.stack([cosine * a - sine * b, sine * a + cosine * b], -1).flatten(-2)
        else:
            a, b = own.chunk(2, -1)
            both = torch.cat([cosine * a - sine * b, sine * a + cosine * b], -1)
        rotated = torch.cat([both, rest], -1)
        return rotated.reshape(x.shape) if tokens else rotated.transpose(1, 2)

    return run
