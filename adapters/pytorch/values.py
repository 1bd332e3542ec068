"""The tensors inside whatever a module returns, and how a user selects one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["snapshot", "tensors_in", "unreadable"]


def tensors_in(value: Any) -> dict[str, torch.Tensor]:
    """Selector to tensor: ``""`` for a bare tensor, ``[0]``, ``["key"]``, ``[0]["key"]`` for nested ones.

    Example:
        >>> list(tensors_in((torch.zeros(1), None, {"h": torch.zeros(2)})))
        ['[0]', '[2]["h"]']
    """
    if isinstance(value, torch.Tensor):
        return {"": value}
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f'["{key}"]', item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"[{i}]", item) for i, item in enumerate(value)]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        parts = [(f'["{field.name}"]', getattr(value, field.name)) for field in fields]
    tensors: dict[str, torch.Tensor] = {}
    for selector, item in parts:
        tensors.update({selector + rest: tensor for rest, tensor in tensors_in(item).items()})
    return tensors


def unreadable(tensor: torch.Tensor) -> str:
    """Why a tensor cannot become a float32 ``z``; empty where it can."""
    if tensor.is_complex():
        return "its output is complex"
    if tensor.layout != torch.strided or tensor.is_quantized:
        return "its output is a sparse, nested or quantised tensor"
    return "its output has no axes" if tensor.ndim == 0 else ""


def snapshot(tensor: torch.Tensor, grad: bool) -> torch.Tensor:
    """A float32 copy that later in-place operations of the network do not reach."""
    kept = tensor if grad else tensor.detach()
    copied = kept.to(torch.float32)
    return copied.clone() if copied is kept else copied
