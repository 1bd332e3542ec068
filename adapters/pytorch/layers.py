"""List a module's layers from what one probe run really calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from ctinv.adapters._types import Layer
from ctinv.adapters.errors import ModelError
from torch import nn

from .state import names_of
from .values import tensors_in, unreadable

__all__ = ["Call", "list_layers"]

_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Call:
    """One tensor that the ``number``-th call of a module returns."""

    module: nn.Module
    number: int
    selector: str


@dataclass
class _Seen:
    """One call of a module during a probe run: what it returned."""

    module: nn.Module
    number: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def list_layers(
    root: nn.Module,
    image: torch.Tensor,
    forward: Callable[[torch.Tensor], Any],
    preserve: Callable[[], contextlib.AbstractContextManager[None]],
) -> tuple[tuple[Layer, ...], dict[str, Call]]:
    """Every layer of ``root`` in execution order, and the call behind each readable one.

    Arguments:
        root: The unwrapped module.
        image: One probe image in model units (1, C, H, W).
        forward: Runs ``root`` on a batch.
        preserve: Makes the context in which ``root`` runs and after which it is as before.
    """
    names = names_of(root)

    def watch(batch: torch.Tensor) -> list[_Seen]:
        with preserve():
            return _watch(names, batch, forward)

    seen = watch(image)
    try:
        # Two images tell which outputs have an axis for images.
        twice = watch(torch.cat((image, image.flip(-1))))
    except ModelError:
        twice = []
    same = [(s.module, s.number) for s in seen] == [(s.module, s.number) for s in twice]
    counts: dict[nn.Module, int] = {}
    for call in seen:
        counts[call.module] = counts.get(call.module, 0) + 1
    layers: list[Layer] = []
    calls: dict[str, Call] = {}
    for index, call in enumerate(seen):
        number = f"@{call.number}" if counts[call.module] > 1 else ""
        stems = [name + number for name in names[call.module]]
        op = _operator(call.module)
        if not call.shapes:
            layers.append(Layer(stems[0], op, (), tuple(stems[1:]), False, "it returns no tensor"))
        for selector, shape in call.shapes.items():
            double = twice[index].shapes.get(selector) if same else None
            fault = call.faults[selector]
            if not fault and double is not None and double[0] != 2 * shape[0]:
                fault = "its output has no axis for images"
            forms = [stem + selector for stem in stems]
            if selector and len(call.shapes) == 1:
                forms = [form for stem in stems for form in (stem, stem + selector)]
            note = fault or call.notes[selector]
            if not fault and shape[0] != 1:
                note = f"{shape[0]} rows for each image"
            size = shape[1:] if shape and shape[0] == 1 else shape
            layers.append(Layer(forms[0], op, size, tuple(forms[1:]), not fault, note))
            if not fault:
                calls[forms[0]] = Call(call.module, call.number, selector)
    for module, every in names.items():
        if module not in counts and not isinstance(module, _CONTAINERS):
            scripted = isinstance(module, torch.jit.ScriptModule)
            idle = "it is compiled by TorchScript" if scripted else "it never ran during a probe run"
            layers.append(Layer(every[0], _operator(module), (), tuple(every[1:]), False, idle))
    return tuple(layers), calls


def _watch(
    names: Mapping[nn.Module, list[str]],
    image: torch.Tensor,
    forward: Callable[[torch.Tensor], Any],
) -> list[_Seen]:
    seen: list[_Seen] = []
    counts: dict[nn.Module, int] = {}

    def record(module: nn.Module, _args: Any, value: Any) -> None:
        call = _Seen(module, counts.get(module, 0))
        counts[module] = call.number + 1
        for selector, tensor in tensors_in(value).items():
            call.shapes[selector] = tuple(tensor.shape)
            call.faults[selector] = unreadable(tensor)
            raw = str(tensor.dtype).removeprefix("torch.")
            call.notes[selector] = "" if raw == "float32" else f"computed in {raw}"
        seen.append(call)

    with contextlib.ExitStack() as stack:
        for module in names:
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(record).remove)
        forward(image)
    return seen


def _operator(module: nn.Module) -> str:
    """The PyTorch layer that a module is, also through subclasses; else its own class."""
    if next(module.children(), None) is None:
        for ancestor in type(module).__mro__:
            if ancestor.__module__.startswith("torch.nn.modules") and ancestor is not nn.Module:
                return ancestor.__name__
    return type(module).__name__.removeprefix("Parametrized")
