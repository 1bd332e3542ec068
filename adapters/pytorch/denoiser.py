"""PyTorch modules as denoisers, observed by forward hooks that are gone after each call."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from ctinv.adapters._types import OUTPUT, Layer, Output
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import DeviceError, LayerError, ModelError, UnsupportedModelError
from ctinv.adapters.intensity import Intensity
from torch import nn

from .layers import Call, list_layers
from .state import plain_state, preserved, refuse_frozen, unwrap
from .values import snapshot, tensors_in, unreadable

__all__ = ["TorchDenoiser"]


class _Enough(BaseException):
    """Ends a forward pass early; not an Exception, so that no network catches it."""


@dataclass
class _Tap:
    """The calls of one module that are wanted: call number, selector, name to file it under."""

    wanted: list[tuple[int, str, str]]
    calls: int = 0


class TorchDenoiser(Denoiser):
    """A denoiser that is a :class:`torch.nn.Module`.

    Layers are the sub-modules, by their dotted names; what happens between modules (a subtraction,
    a concatenation) has no name. The module is run as it is, eagerly and in eval mode, without
    autocast; its weights, buffers, attributes, training flags and hooks are afterwards what they
    were. ``module.`` and ``_orig_mod.`` of wrapped modules are left out of names.

    Arguments:
        module: The network, from model units (N, C, H, W) to the same.
        intensity: The model's units; None while they are unknown.
        output: Whether it returns the image or the noise; None to find out.
        name: What to call it in reports; its class name by default.
        device: ``auto`` leaves it where it is; elsewhere a copy is run.
        feed: Further arguments of ``forward`` by name, in model units: numbers (given as they are,
            or as a tensor (N, 1, 1, 1), (N,) or (N, 1, H, W), the first that runs) or tensors.
        channels: Input channels, where the grey image must be repeated.
        output_tensor: Which tensor is the image where the network returns several, as ``[0]`` or
            ``["image"]``.

    Raises:
        UnsupportedModelError: TorchScript or an exported program.
        ModelError: ``forward`` needs arguments that ``feed`` does not give, or not those given.
        DeviceError: The device is not there.
    """

    kind = "torch"
    differentiable = True

    def __init__(
        self,
        module: nn.Module,
        *,
        intensity: Intensity | None = None,
        output: Output | None = "image",
        name: str | None = None,
        device: str = "auto",
        feed: Mapping[str, Any] | None = None,
        channels: int = 1,
        output_tensor: str | None = None,
    ) -> None:
        refuse_frozen(module)
        inner = unwrap(module)
        refuse_frozen(inner)
        super().__init__(name or type(inner).__name__, intensity, output, channels=channels)
        self._module = _placed(inner, device)
        self._feed = dict(feed or {})
        self._feed_form: Callable[[float, torch.Tensor], Any] | None = None
        self._output_tensor = output_tensor
        self._edits_weights: bool | None = None
        self._calls: dict[str, Call] | None = None
        self._layers: tuple[Layer, ...] = ()
        self._check_feed()

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every sub-module, in the order of one probe run; those that never ran come last."""
        if self._calls is None:
            image = self._probe_image(*self.probe_size)
            with self._context(False):
                self._layers, self._calls = list_layers(self._module, image, self._forward, self._preserved)
        return self._layers

    @property
    def device(self) -> str:
        """Where the first parameter or buffer lies; ``cpu`` for a module without any."""
        return str(self._home() or "cpu")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of structure, code, weights, buffers, attributes and bound inputs."""
        digest = hashlib.sha256()
        digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(self._module)).encode())
        for name, module in self._module.named_modules():
            digest.update(f"{name}:{type(module).__qualname__}".encode())
            if not type(module).__module__.startswith("torch."):
                with contextlib.suppress(OSError, TypeError):
                    digest.update(inspect.getsource(type(module).forward).encode())
            _hash_values(digest, {**module._parameters, **module._buffers, **plain_state(module)})
        _hash_values(digest, {**self._feed, "channels": self.channels, "tensor": self._output_tensor})
        return digest.hexdigest()

    # -- running --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _context(self, grad: bool) -> Iterator[None]:
        # inference_mode tensors could not be used for fitting later.
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(grad))
            for kind in dict.fromkeys((torch.device(self.device).type, "cpu")):
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield

    def _native(self, x: Any) -> torch.Tensor:
        if not isinstance(x, torch.Tensor):
            x = torch.from_numpy(np.array(x, dtype=np.float32))
        if x.is_inference():
            x = x.clone()
        moved: torch.Tensor = x.to(device=self._home() or x.device, dtype=torch.float32)
        return moved

    def _run(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        taps: dict[nn.Module, _Tap] = {}
        inner = [name for name in names if name != OUTPUT]
        for name in inner:
            call = self._call(name)
            taps.setdefault(call.module, _Tap([])).wanted.append((call.number, call.selector, name))
        # With all layers in hand the rest of the network need not run.
        stop = OUTPUT not in names and not grad

        def record(module: nn.Module, _args: Any, value: Any) -> None:
            tap = taps[module]
            for number, selector, name in tap.wanted:
                if number == tap.calls:
                    tensor = tensors_in(value).get(selector)
                    if tensor is None or unreadable(tensor):
                        raise LayerError(
                            f"layer {name!r} returns something else than when layers were listed", name
                        )
                    found[name] = snapshot(tensor, grad)
            tap.calls += 1
            if stop and len(found) == len(inner):
                raise _Enough

        with contextlib.ExitStack() as stack:
            stack.enter_context(self._preserved())
            for module in taps:
                stack.callback(module.register_forward_hook(record).remove)
            try:
                value = self._forward(x)
            except _Enough:
                value = None
        missing = [name for name in inner if name not in found]
        if missing:
            raise LayerError(
                f"layer {missing[0]!r} did not run for these images: the network branches, or runs it in "
                "compiled code",
                missing[0],
            )
        if OUTPUT in names:
            found[OUTPUT] = snapshot(self._image_tensor(value), grad)
        return found

    def _preserved(self) -> contextlib.AbstractContextManager[None]:
        if self._edits_weights is None:
            # Asked once, on the first run: does a forward pass change parameters?
            self._edits_weights = True
            before = [(p, p.detach().clone()) for p in self._module.parameters()]

            @contextlib.contextmanager
            def watched() -> Iterator[None]:
                with preserved(self._module, everything=True):
                    yield
                    self._edits_weights = any(not torch.equal(p, kept) for p, kept in before)
                if self._edits_weights:
                    self._notify("the network edits its own weights when run; they are put back each time")

            return watched()
        return preserved(self._module, everything=self._edits_weights)

    def _forward(self, x: torch.Tensor) -> Any:
        """The module on one batch, in its own type; its errors become ModelError."""
        x = x.to(self._dtype())
        forms = _FORMS if self._feed and self._feed_form is None else (self._feed_form or _FORMS[0],)
        failure: Exception | None = None
        for form in forms:
            extra = {key: self._fed(value, form, x) for key, value in self._feed.items()}
            try:
                # Through __call__, never forward(): hooks of the root fire too.
                value = self._module(x, **extra)
            except (LayerError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                failure = failure or error
                continue
            self._feed_form = form
            return value
        assert failure is not None
        text = str(failure).strip().splitlines()
        raise ModelError(
            f"{self.name!r} fails on an image of shape {tuple(x.shape)}: {type(failure).__name__}"
            f"{': ' + text[0] if text else ''}{self._hint()}"
        ) from failure

    def _fed(self, value: Any, form: Callable[[float, torch.Tensor], Any], x: torch.Tensor) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return form(value, x)
        return value.to(x.device) if isinstance(value, torch.Tensor) else value

    def _hint(self) -> str:
        for module in self._module.modules():
            if isinstance(module, nn.modules.conv._ConvNd):
                if module.in_channels != self.channels:
                    return (
                        f"; its first convolution takes {module.in_channels} channels: give channels="
                        f"{module.in_channels} to repeat the grey image"
                    )
                break
        return ""

    def _image_tensor(self, value: Any) -> torch.Tensor:
        tensors = tensors_in(value)
        if self._output_tensor is not None:
            if self._output_tensor not in tensors:
                raise ModelError(
                    f"output_tensor={self._output_tensor!r} is not among what {self.name!r} returns: "
                    f"{', '.join(tensors) or 'no tensor'}"
                )
            return tensors[self._output_tensor]
        if len(tensors) != 1:
            listed = ", ".join(f"{key} {tuple(t.shape)}" for key, t in tensors.items())
            raise UnsupportedModelError(
                f"{self.name!r} returns {len(tensors)} tensors ({listed}); say which is the image with "
                "output_tensor='[0]' or the like"
            )
        return next(iter(tensors.values()))

    def _call(self, name: str) -> Call:
        if self._calls is None:
            _ = self.layers
        assert self._calls is not None
        return self._calls[name]

    def _home(self) -> torch.device | None:
        for tensor in chain(self._module.parameters(), self._module.buffers()):
            if tensor.device.type != "meta":
                return tensor.device
            raise ModelError(f"{self.name!r} has no weights yet (device meta); load them first")
        return None

    def _dtype(self) -> torch.dtype:
        for tensor in chain(self._module.parameters(), self._module.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float32

    def _check_feed(self) -> None:
        try:
            parameters = list(inspect.signature(self._module.forward).parameters.values())
        except (TypeError, ValueError):
            return
        free = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)][1:]
        unknown = [key for key in self._feed if key not in {p.name for p in named} and not free]
        if unknown:
            raise ModelError(
                f"{self.name!r} takes no argument {unknown[0]!r}; beside the image it takes "
                f"{', '.join(p.name for p in named) or 'nothing'}"
            )
        needed = [p.name for p in named if p.default is p.empty and p.name not in self._feed]
        if needed:
            raise ModelError(
                f"{self.name!r} needs {', '.join(needed)} beside the image; bind it with "
                f"feed={{{needed[0]!r}: value}}, in the model's units"
            )


def _as_number(value: float, _x: torch.Tensor) -> Any:
    return value


def _as_scalars(value: float, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0], 1, 1, 1), value)


def _as_vector(value: float, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0],), value)


def _as_map(value: float, x: torch.Tensor) -> Any:
    return x.new_full((x.shape[0], 1, *x.shape[-2:]), value)


_FORMS: tuple[Callable[[float, torch.Tensor], Any], ...] = (_as_number, _as_scalars, _as_vector, _as_map)


def _placed(module: nn.Module, device: str) -> nn.Module:
    """The module itself where it is on ``device`` already, else a copy there."""
    if device == "auto":
        return module
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"device {device!r} is not available ({str(error).splitlines()[0]}); use cpu or auto"
        ) from error
    tensors = [*module.parameters(), *module.buffers()]
    if all(_same_device(tensor.device, target) for tensor in tensors):
        return module
    return copy.deepcopy(module).to(target)


def _same_device(a: torch.device, b: torch.device) -> bool:
    return a.type == b.type and (b.index is None or a.index == b.index)


def _hash_values(digest: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        digest.update(f"|{key}=".encode())
        if isinstance(value, torch.Tensor):
            kept = value.detach().to("cpu").contiguous()
            digest.update(f"{tuple(kept.shape)}{kept.dtype}".encode())
            digest.update(kept.flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
        else:
            digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(value)).encode())
