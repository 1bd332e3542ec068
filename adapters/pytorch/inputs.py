"""How an image, and the values bound beside it, are given to a network."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

import torch
from ctinv.adapters.errors import ModelError
from torch import nn

from .values import tensors_in

__all__ = ["Inputs", "Ways"]

Form = Callable[[Any, torch.Tensor], Any]
Ways = tuple[Form, ...]
"""The form of the image, then that of each bound number."""

_MOST = 400  # ways that are tried


class Inputs:
    """The image and the bound values of one network, in every form that networks take them in.

    Arguments:
        module: The network.
        name: What to call it.
        feed: Values by name, in model units: numbers, or tensors, which are given as they are. A name
            that is no argument of ``forward`` stands for a further channel of the image that holds
            its value, where the first convolution takes that many channels.
        channels: Channels of the image without those.

    Raises:
        ModelError: ``forward`` needs arguments that ``feed`` does not give, or not those given.
    """

    def __init__(self, module: nn.Module, name: str, feed: Mapping[str, Any], channels: int) -> None:
        self.feed = dict(feed)
        self.notices: list[str] = []
        self.channels = channels
        convolutions = [part for part in module.modules() if isinstance(part, nn.modules.conv._ConvNd)]
        self._takes = convolutions[0].in_channels if convolutions else None
        self._volume = any(isinstance(part, nn.Conv3d) for part in convolutions)
        self._maps: dict[str, float] = {}
        self._check(module, name)
        self._fed = {key: value for key, value in self.feed.items() if key not in self._maps}

    def ways(self) -> Iterator[Ways]:
        """Every way to give the inputs, the plainest first."""
        numbers = [_forms(value) for value in self._fed.values()]
        for count, way in enumerate(product((_plane,) if not self._volume else _VOLUMES, *numbers)):
            if count < _MOST:
                yield way

    def given(self, way: Ways, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, Any]]:
        """The first argument and the named ones for images (N, C, H, W) in model units."""
        maps = [_as_map(value, x) for value in self._maps.values()]
        image = way[0](None, torch.cat([x, *maps], 1) if maps else x)
        named = zip(self._fed.items(), way[1:], strict=True)
        return image, {key: form(value, x) for (key, value), form in named}

    @contextlib.contextmanager
    def watched(self, root: nn.Module) -> Iterator[None]:
        """While a network of 3-D convolutions runs: none may take the images of a batch for depth."""
        if not self._volume:
            yield
            return

        def look(_module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], torch.Tensor) and args[0].ndim != 5:
                raise ValueError(f"a 3-D convolution is given {args[0].ndim} axes, not 5")

        with contextlib.ExitStack() as stack:
            for part in root.modules():
                if isinstance(part, nn.Conv3d):
                    stack.callback(part.register_forward_pre_hook(look).remove)
            yield

    def check(self, value: Any, x: torch.Tensor) -> None:
        """Refuse what a wrong form may lead to: something else than images.

        Raises:
            ValueError: There is no tensor with an axis for these images.
        """
        if (self._fed or self._volume) and not any(
            tensor.ndim in (4, 5) and len(tensor) == len(x) for tensor in tensors_in(value).values()
        ):
            raise ValueError("the output is no image (N, C, H, W)")

    def hint(self) -> str:
        """What a failing network may lack; empty where nothing is known."""
        if self._takes is None or self._takes == self.channels + len(self._maps):
            return ""
        many = f"channels={self._takes} to repeat the grey image, or for neighbouring slices"
        noise = "; a noise level as second channel is bound with feed sigma=VALUE" if self._takes == 2 else ""
        return f"; its first convolution takes {self._takes} channels: give {many}{noise}"

    def _check(self, module: nn.Module, name: str) -> None:
        try:
            parameters = list(inspect.signature(module.forward).parameters.values())
        except (TypeError, ValueError):
            return
        free = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]
        unknown = [key for key in self.feed if key not in {p.name for p in named} and not free]
        needed = [p.name for p in named if p.default is p.empty and p.name not in self.feed]
        if unknown and not needed and self._as_channels(unknown):
            self._maps = {key: self.feed[key] for key in unknown}
            self.channels = 1
            self.notices.append(f"{', '.join(unknown)} is given as a further channel of the image")
        elif unknown:
            raise ModelError(
                f"{name!r} takes no argument {unknown[0]!r}; beside the image it takes "
                f"{', '.join(p.name for p in named) or 'nothing'}"
            )
        if needed:
            raise ModelError(
                f"{name!r} needs {', '.join(needed)} beside the image; bind it with "
                f"feed={{{needed[0]!r}: value}}, in the model's units"
            )

    def _as_channels(self, unknown: list[str]) -> bool:
        numbers = all(_is_number(self.feed[key]) for key in unknown)
        return numbers and self._takes == 1 + len(unknown) and self.channels in (1, self._takes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _forms(value: Any) -> tuple[Form, ...]:
    """The forms in which a value is given; whole numbers may be places in a table too."""
    if not _is_number(value):
        return (_as_it_is,)
    return (*_NUMBERS, *_COUNTS) if float(value).is_integer() else _NUMBERS


def _as_it_is(value: Any, x: torch.Tensor) -> Any:
    return value.to(x.device) if isinstance(value, torch.Tensor) else value


def _as_number(value: Any, _x: torch.Tensor) -> Any:
    return value


def _as_scalars(value: Any, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0], 1, 1, 1), value)


def _as_vector(value: Any, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0],), value)


def _as_map(value: Any, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0], 1, *x.shape[-2:]), value)


def _as_column(value: Any, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0], 1), value)


def _as_counts(value: Any, x: torch.Tensor) -> Any:
    return torch.full((x.shape[0],), int(value), dtype=torch.long, device=x.device)


def _as_count_column(value: Any, x: torch.Tensor) -> Any:
    return torch.full((x.shape[0], 1), int(value), dtype=torch.long, device=x.device)


def _as_count(value: Any, x: torch.Tensor) -> Any:
    return torch.tensor(int(value), device=x.device)


def _as_integer(value: Any, _x: torch.Tensor) -> Any:
    return int(value)


def _plane(_value: Any, x: torch.Tensor) -> torch.Tensor:
    return x


def _slices_deep(_value: Any, x: torch.Tensor) -> torch.Tensor:
    """Slices along a depth axis: (N, 1, C, H, W)."""
    return x[:, None]


def _flat_volume(_value: Any, x: torch.Tensor) -> torch.Tensor:
    """A volume of one slice: (N, C, 1, H, W)."""
    return x[:, :, None]


_NUMBERS: tuple[Form, ...] = (_as_number, _as_scalars, _as_vector, _as_map, _as_column)
_COUNTS: tuple[Form, ...] = (_as_counts, _as_count, _as_count_column, _as_integer)
# A 3-D convolution takes (1, 1, H, W) too, and its channels for depth: a plane comes last, and is watched.
_VOLUMES: tuple[Form, ...] = (_slices_deep, _flat_volume, _plane)
