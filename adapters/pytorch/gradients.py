"""Run a network so that its output can be differentiated twice, and long after it ran."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import importlib
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, flex_attention, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

__all__ = ["depends", "differentiable", "eagerly", "stand_in"]

_PASSING: contextvars.ContextVar[bool] = contextvars.ContextVar("passing", default=False)
_UNCOMPILED: contextvars.ContextVar[bool] = contextvars.ContextVar("uncompiled", default=False)
_LOCK = threading.Lock()
# PyTorch's own plain form of flexible attention; it is no public name, and may be gone one day.
_PLAIN_FLEXIBLE = getattr(
    importlib.import_module("torch._higher_order_ops.flex_attention"), "math_attention", None
)
_ATTENTIONS = (
    F.scaled_dot_product_attention,
    F.multi_head_attention_forward,
    torch.ops.aten.scaled_dot_product_attention,
    torch.ops.aten.scaled_dot_product_attention.default,
)


@contextlib.contextmanager
def differentiable() -> Iterator[None]:
    """Attention in its plain form, checkpointed blocks and compiled functions run straight through.

    Fused attention and compiled code have no second derivative. A checkpointed block runs again when
    gradients are asked for: the network is then no longer as it was, and its re-entrant form allows no
    gradients by the image.
    """
    with sdpa_kernel(SDPBackend.MATH), _PlainAttention(), eagerly():
        token = _PASSING.set(True)
        try:
            yield
        finally:
            _PASSING.reset(token)


class _Eager:
    """While any thread is inside, compiled functions run as they are written."""

    def __init__(self) -> None:
        self._users = 0
        self._stance = contextlib.ExitStack()
        self._is_set = False

    def __enter__(self) -> None:
        with _LOCK:
            self._users += 1
            if "torch._dynamo" in sys.modules:  # else nothing is compiled yet
                self._set()

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self._users -= 1
            if not self._users:
                self._stance.close()
                self._is_set = False

    def about_to_compile(self) -> None:
        """Let what is compiled for the first time from now on run so too."""
        with _LOCK:
            if self._users:
                self._set()

    def _set(self) -> None:
        if not self._is_set:
            self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._is_set = True


_EAGER = _Eager()


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Compiled functions inside a network run as they are written: hooks in them fire, gradients flow.

    Flexible attention, which PyTorch itself compiles, takes its plain form.
    """
    with _EAGER, _STAND_INS:
        token = _UNCOMPILED.set(True)
        try:
            yield
        finally:
            _UNCOMPILED.reset(token)


class _PlainAttention(TorchFunctionMode):
    """While active, attention runs in its plain form, also where a network asks for another one."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _ATTENTIONS:
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _StandIns:
    """While any thread is inside, functions of PyTorch can be passed by; only callers who say so do."""

    def __init__(self, stands: Mapping[tuple[ModuleType, str], Any]) -> None:
        self._stands = {place: stand for place, stand in stands.items() if hasattr(*place)}
        self.kept = {name: getattr(module, name) for module, name in self._stands}
        self._users = 0

    def __enter__(self) -> None:
        with _LOCK:
            if not self._users:
                for (module, name), stand in self._stands.items():
                    setattr(module, name, stand)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            self._users -= 1
            if not self._users:
                for module, name in self._stands:
                    setattr(module, name, self.kept[name])


class _Function:
    """In the place of re-entrant checkpointing."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if _PASSING.get():
            return function(*args)
        return _STAND_INS.kept["CheckpointFunction"].apply(function, preserve, *args)


def _generator(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In the place of the other checkpointing, which runs the block between two steps of this."""
    if _PASSING.get():
        return iter((None,))
    steps: Iterator[None] = _STAND_INS.kept["_checkpoint_without_reentrant_generator"](*args, **kwargs)
    return steps


def _any_device(*args: Any) -> None:
    """In the place of what refuses gradients of flexible attention on processors."""
    if _UNCOMPILED.get() and _PLAIN_FLEXIBLE is not None:
        _EAGER.about_to_compile()
    else:
        _STAND_INS.kept["_validate_device"](*args)


def _flexible(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    score_mod: Any,
    block_mask: Any,
    scale: float,
    kernel_options: Mapping[str, Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """In the place of flexible attention's kernel: PyTorch's own plain form of it."""
    if not _UNCOMPILED.get() or _PLAIN_FLEXIBLE is None:
        operator = _STAND_INS.kept["flex_attention_hop"]
        return operator(query, key, value, score_mod, block_mask, scale, kernel_options, *args, **kwargs)
    out, *logarithms = _PLAIN_FLEXIBLE(
        query, key, value, score_mod, block_mask, scale, dict(kernel_options), *args, **kwargs
    )
    if kernel_options.get("BACKEND") == "FLASH":  # whose logarithms are natural ones
        logarithms = [each * math.log(2.0) for each in logarithms]
    return (out, *logarithms)


_STAND_INS = _StandIns(
    {
        (checkpoint, "CheckpointFunction"): _Function,
        (checkpoint, "_checkpoint_without_reentrant_generator"): _generator,
        (flex_attention, "_validate_device"): _any_device,
        (flex_attention, "flex_attention_hop"): _flexible,
    }
)


def depends(z: torch.Tensor, x: torch.Tensor) -> bool:
    """Whether gradients flow from ``z`` back to ``x``, itself computed from what they are asked by."""
    waiting, seen = [z.grad_fn], set()
    while waiting:
        step = waiting.pop()
        if step is not None and step is x.grad_fn:
            return True
        if step is not None and step not in seen:
            seen.add(step)
            waiting.extend(before for before, _ in step.next_functions)
    return False


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
