"""Run a network so that its output can be differentiated twice, and long after it ran."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import checkpoint

__all__ = ["differentiable", "stand_in"]

_PASSING: contextvars.ContextVar[bool] = contextvars.ContextVar("passing", default=False)
_LOCK = threading.Lock()
_SWITCHES = {"users": 0}
_KEPT: dict[str, Any] = {}


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Attention in its plain form, checkpointed blocks run straight through.

    Fused attention has no second derivative. A checkpointed block runs again when gradients are asked
    for: the network is then no longer as it was, and its re-entrant form allows no gradients by the image.
    """
    with sdpa_kernel(SDPBackend.MATH), _straight_through():
        token = _PASSING.set(True)
        try:
            yield
        finally:
            _PASSING.reset(token)


@contextlib.contextmanager
def _straight_through() -> Iterator[None]:
    """While any thread is inside, checkpointing can be passed through; only callers who say so do."""
    with _LOCK:
        if not _SWITCHES["users"]:
            for name, stand in (("CheckpointFunction", _Function), (_GENERATOR, _generator)):
                _KEPT[name] = getattr(checkpoint, name, None)
                if _KEPT[name] is not None:
                    setattr(checkpoint, name, stand)
        _SWITCHES["users"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _SWITCHES["users"] -= 1
            if not _SWITCHES["users"]:
                for name, original in _KEPT.items():
                    if original is not None:
                        setattr(checkpoint, name, original)


_GENERATOR = "_checkpoint_without_reentrant_generator"


class _Function:
    """In the place of re-entrant checkpointing."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if _PASSING.get():
            return function(*args)
        return _KEPT["CheckpointFunction"].apply(function, preserve, *args)


def _generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In the place of the other checkpointing, which runs the block between two steps of this."""
    if _PASSING.get():
        return iter((None,))
    found: Iterator[None] = _KEPT[_GENERATOR](*args, **kwargs)
    return found


def stand_in(root: nn.Module) -> tuple[nn.Module, dict[nn.Module, nn.Module]]:
    """A copy that stays as the network is now, whatever is done to the network later; weights are shared.

    For networks that run parts of themselves again when gradients are asked for.

    Returns:
        The copy, and each module's counterpart in it; the network itself where it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in root.modules():
        for value in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value
    try:
        copied = copy.deepcopy(root, memo)
    except Exception:  # whatever foreign code raises, it cannot be copied
        return root, {}
    return copied, {module: memo[id(module)] for module in root.modules() if id(module) in memo}
