"""List a module's layers from what one probe run really calls."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ctinv.adapters._types import CHANNELS_LAST, OUTPUT, Layer, Layers
from ctinv.adapters.errors import ModelError, UnsupportedModelError
from torch import nn

from .axes import is_last, may_be_last, widened
from .state import names_of
from .values import tensors_in, unreadable

__all__ = ["Call", "Listing", "list_layers"]

_SKETCHED = 2**12  # values of a layer's row that are compared
# Of the largest value: what other kernels for another number of images may change; so on a GPU, which
# multiplies more coarsely, and so in half precision.
_SAME, _SAME_GPU, _SAME_HALF = 1e-4, 1e-3, 3e-2
_AGAIN = 8  # further runs of a network that draws random numbers: few may be alike by chance
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


@dataclass(frozen=True)
class Call:
    """One tensor that the ``number``-th call of a module returns."""

    module: nn.Module
    number: int
    selector: str


@dataclass(frozen=True)
class Listing:
    """What probe runs tell about a network.

    Arguments:
        layers: Every layer, in execution order.
        calls: The call behind each readable one.
        mixing: Names, OUTPUT among them, that must be read image by image.
        notice: Why they must; empty where none must.
        still: Names of what is the same for two images.
    """

    layers: tuple[Layer, ...]
    calls: dict[str, Call]
    mixing: frozenset[str]
    notice: str
    still: frozenset[str]


@dataclass
class _Seen:
    """One call of a module during a probe run: what it returned. The last one is the network's own."""

    module: nn.Module | None
    number: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    sketches: dict[str, torch.Tensor] = field(default_factory=dict)
    on_gpu: bool = False

    def tolerance(self, selector: str) -> float:
        """How far equal values may be apart, over the largest of them."""
        if self.notes[selector]:
            return _SAME_HALF
        return _SAME_GPU if self.on_gpu else _SAME


def list_layers(
    root: nn.Module,
    image: torch.Tensor,
    forward: Callable[[torch.Tensor, Callable[[], None]], torch.Tensor],
    preserve: Callable[[], contextlib.AbstractContextManager[None]],
    name: str,
) -> Listing:
    """Every layer of ``root``, and whether images of a batch are read alike alone and together.

    Arguments:
        root: The unwrapped module.
        image: One probe image in model units (1, C, H, W).
        forward: Runs ``root`` on a batch and gives its image; calls its second argument before each try.
        preserve: Makes the context in which ``root`` runs and after which it is as before.
        name: What to call the network.

    Raises:
        UnsupportedModelError: Two runs on the same image differ.
    """
    names = names_of(root)

    def watch(batch: torch.Tensor) -> list[_Seen]:
        with preserve():
            return _watch(names, batch, forward)

    before = _generators()
    seen, again = watch(image), [watch(image)]
    if _generators() != before:
        again += [watch(image) for _ in range(_AGAIN)]
    if not all(_path(seen) == _path(other) and all(map(_alike, seen, other)) for other in again):
        raise UnsupportedModelError(
            f"two runs of {name!r} on one image differ: it draws random numbers, or remembers what it ran "
            "on, also in eval mode; a layer has no one value then. Give F.dropout training=self.training, "
            "fix the noise that is drawn, or give a network whose own train() does more after its eval()"
        )
    # Brighter, so that what looks for the most alike among images finds this one.
    other = 1.5 * image.flip(-1, -2) + 0.5 * image
    alone = watch(other)
    try:
        # Two images tell which outputs have an axis for images.
        twice = watch(torch.cat((image, other)))
    except ModelError:
        twice = []
    together = _path(seen) == _path(twice) == _path(alone)
    table = _Table(names, seen, twice if together else [], _widely(seen, image, watch))
    first = next(
        (
            index
            for index, call in enumerate(seen)
            if not together
            or any(not _apart(call, alone[index], twice[index], selector) for selector in call.shapes)
        ),
        len(seen),
    )
    # What comes after may hide it in larger values.
    mixing = {
        table.name(index, selector)
        for index, call in enumerate(seen)
        if index >= first
        for selector in call.shapes
    }
    notice = ""
    if mixing and not twice:
        notice = "the network takes one image at a time; images are run one by one"
    elif mixing:
        notice = (
            "the network mixes the images of a batch, or runs each in another way; images are run one by one"
        )
    return Listing(Layers(table.layers), table.calls, frozenset(mixing), notice, _still(table, seen, alone))


def _still(table: _Table, seen: list[_Seen], other: list[_Seen]) -> frozenset[str]:
    """Names of what is the same for two images."""
    pairs = enumerate(zip(seen, other, strict=False))
    return frozenset(
        table.name(index, selector)
        for index, (call, second) in pairs
        for selector, sketch in call.sketches.items()
        if selector in second.sketches and torch.equal(sketch, second.sketches[selector])
    )


def _widely(
    seen: list[_Seen], image: torch.Tensor, watch: Callable[[torch.Tensor], list[_Seen]]
) -> set[tuple[int, str]]:
    """Call and selector of maps whose channels come last; one run more where some may have them there."""
    size = (image.shape[-2], image.shape[-1])
    if not any(may_be_last(shape, size) for call in seen for shape in call.shapes.values()):
        return set()
    try:
        wide = watch(widened(image))
    except ModelError:  # one size only: nothing tells
        return set()
    if _path(wide) != _path(seen):
        return set()
    return {
        (index, selector)
        for index, call in enumerate(seen)
        for selector, shape in call.shapes.items()
        if is_last(shape, wide[index].shapes.get(selector, ()), size)
    }


class _Table:
    """Layers and calls by name, of what probe runs saw."""

    def __init__(
        self,
        names: Mapping[nn.Module, list[str]],
        seen: list[_Seen],
        twice: list[_Seen],
        last: Collection[tuple[int, str]],
    ) -> None:
        self._last = last
        self.layers: list[Layer] = []
        self.calls: dict[str, Call] = {}
        self._names: dict[tuple[int, str], str] = {}
        counts = Counter(call.module for call in seen)
        for index, call in enumerate(seen[:-1]):
            assert call.module is not None
            number = f"@{call.number}" if counts[call.module] > 1 else ""
            stems = [name + number for name in names[call.module]]
            self._add(index, call, stems, twice[index] if twice else None)
        for module, every in names.items():
            if module not in counts and not isinstance(module, _CONTAINERS):
                scripted = isinstance(module, torch.jit.ScriptModule)
                idle = "it is compiled by TorchScript" if scripted else "it never ran during a probe run"
                self.layers.append(Layer(every[0], _operator(module), (), tuple(every[1:]), False, idle))

    def name(self, index: int, selector: str) -> str:
        """The layer that a call's tensor became."""
        return self._names.get((index, selector), OUTPUT)

    def _add(self, index: int, call: _Seen, stems: list[str], double: _Seen | None) -> None:
        assert call.module is not None
        op = _operator(call.module)
        if not call.shapes:
            self.layers.append(Layer(stems[0], op, (), tuple(stems[1:]), False, "it returns no tensor"))
        for selector, shape in call.shapes.items():
            fault = call.faults[selector]
            several = double.shapes.get(selector) if double else None
            if not fault and several is not None and several[0] != 2 * shape[0]:
                fault = "its output has no axis for images"
            forms = [stem + selector for stem in stems]
            if selector and len(call.shapes) == 1:
                forms = [form for stem in stems for form in (stem, stem + selector)]
            note = fault or call.notes[selector]
            if not fault and shape[0] != 1:
                note = f"{shape[0]} rows for each image"
            size = shape[1:] if shape and shape[0] == 1 else shape
            last = (index, selector) in self._last and not fault and shape[0] == 1
            note = "; ".join(filter(None, (note, CHANNELS_LAST if last else "")))
            self.layers.append(Layer(forms[0], op, size, tuple(forms[1:]), not fault, note, last))
            self._names[index, selector] = forms[0]
            if not fault:
                self.calls[forms[0]] = Call(call.module, call.number, selector)


def _generators() -> tuple[object, ...]:
    """Where the random numbers stand that networks draw."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return random.getstate(), torch.get_rng_state().numpy().tobytes(), numpy[1].tobytes(), numpy[2:]


def _path(seen: list[_Seen]) -> list[tuple[nn.Module | None, int]]:
    return [(call.module, call.number) for call in seen]


def _alike(a: _Seen, b: _Seen) -> bool:
    return a.shapes == b.shapes and all(
        _close(a.sketches[key], b.sketches[key], a.tolerance(key)) for key in a.sketches
    )


def _apart(first: _Seen, second: _Seen, both: _Seen, selector: str) -> bool:
    """Whether two images in one batch gave what each gives alone."""
    one, two, pair = (call.sketches.get(selector) for call in (first, second, both))
    if one is None or two is None or pair is None or len(pair) != len(one) + len(two):
        return True  # nothing that could be read: no axis for images
    # Rows of one image may lie behind each other, or between those of the next.
    orders = (torch.cat((one, two)), torch.stack((one, two), 1).flatten(0, 1)) if len(one) == len(two) else ()
    return any(_close(pair, order, both.tolerance(selector)) for order in orders)


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    if a.shape != b.shape:
        return False
    a, b = a.nan_to_num(), b.nan_to_num()
    span = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= tolerance * span).all())


def _sketch(tensor: torch.Tensor) -> torch.Tensor:
    """Some of a tensor's values, the same places for every row, as float32 on the CPU."""
    rows = tensor.detach().reshape(len(tensor), -1)
    # An odd step meets every column of the image, and every channel.
    step = (rows.shape[1] // _SKETCHED) | 1
    return rows[:, ::step].to(device="cpu", dtype=torch.float32, copy=True)


def _watch(
    names: Mapping[nn.Module, list[str]],
    image: torch.Tensor,
    forward: Callable[[torch.Tensor, Callable[[], None]], torch.Tensor],
) -> list[_Seen]:
    seen: list[_Seen] = []
    counts: Counter[nn.Module] = Counter()

    def look(call: _Seen, value: Any) -> None:
        for selector, tensor in tensors_in(value).items():
            call.shapes[selector] = tuple(tensor.shape)
            call.faults[selector] = unreadable(tensor)
            raw = str(tensor.dtype).removeprefix("torch.")
            call.notes[selector] = "" if raw == "float32" else f"computed in {raw}"
            if not call.faults[selector] and tensor.numel():
                call.sketches[selector] = _sketch(tensor)
                call.on_gpu = call.on_gpu or tensor.device.type != "cpu"
        seen.append(call)

    def record(module: nn.Module, _args: Any, value: Any) -> None:
        look(_Seen(module, counts[module]), value)
        counts[module] += 1

    with contextlib.ExitStack() as stack:
        for module in names:
            if not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(record).remove)

        def restart() -> None:
            seen.clear()
            counts.clear()

        look(_Seen(None, 0), forward(image, restart))
    return seen


def _operator(module: nn.Module) -> str:
    """The PyTorch layer that a module is, also through subclasses; else its own class."""
    if next(module.children(), None) is None:
        for ancestor in type(module).__mro__:
            if ancestor.__module__.startswith("torch.nn.modules") and ancestor is not nn.Module:
                return ancestor.__name__
    return type(module).__name__.removeprefix("Parametrized")
