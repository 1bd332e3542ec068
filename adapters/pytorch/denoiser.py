"""PyTorch modules as denoisers, observed by forward hooks that are gone after each call."""

from __future__ import annotations

import contextlib
import copy
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from ctinv.adapters._types import OUTPUT, Layer, Output
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import DeviceError, LayerError, ModelError, UnsupportedModelError
from ctinv.adapters.geometry import OneSize
from ctinv.adapters.intensity import Intensity
from ctinv.adapters.tiles import Tiler, stride_within
from torch import nn

from .digest import Digest
from .gradients import depends, differentiable, eagerly, stand_in
from .inputs import Inputs, Ways
from .keys import refuse_unfinite
from .layers import Listing, list_layers
from .outputs import image_in
from .state import preserved, refuse_frozen, unwrap
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
            or as a tensor (N, 1, 1, 1), (N,), (N, 1, H, W) or (N, 1), whole numbers as places in a
            table too, the first that runs) or tensors. A name that is no argument stands for a
            further channel of the image, where the network takes one.
        channels: Input channels, where the grey image must be repeated; for a network that returns
            one of them, neighbouring slices.
        output_tensor: Which tensor is the image where the network returns several, as ``[0]``,
            ``["image"]`` or ``image``; None for the only one of the image's size.

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
        called = name or type(inner).__name__
        self._inputs = Inputs(inner, called, feed or {}, channels)
        super().__init__(called, intensity, output, channels=self._inputs.channels)
        self._geometry = OneSize(self._output_shape, self._probe_image, self._set_tile, self._notify)
        self._tile: tuple[int, int] | None = None
        self._tilers: dict[tuple[str, ...], Tiler] = {}
        self.notices.extend(self._inputs.notices)
        self._module = _placed(inner, device)
        self._way: Ways | None = None
        self._output_tensor = output_tensor
        self._edits_weights: bool | None = None
        self._listing: Listing | None = None
        self._token = uuid.uuid4().hex

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every sub-module, in the order of one probe run; those that never ran come last.

        Raises:
            UnsupportedModelError: Two runs on one image differ.
        """
        return self._listed().layers

    def _listed(self) -> Listing:
        if self._listing is None:
            refuse_unfinite(self._module, repr(self.name))
            image = self._probe_image(*self.probe_size)
            with self._context(False):
                self._listing = list_layers(self._module, image, self._output_of, self._preserved, self.name)
            if self._listing.notice:
                self._notify(self._listing.notice)
        return self._listing

    def _mixes(self, names: Sequence[str]) -> bool:
        return not self._listed().mixing.isdisjoint(names)

    @property
    def module(self) -> nn.Module:
        """The network that is run: the one given, unwrapped, or its copy on another device."""
        return self._module

    @property
    def feed(self) -> Mapping[str, Any]:
        """The values that are bound beside the image."""
        return self._inputs.feed

    @property
    def device(self) -> str:
        """Where the first parameter or buffer lies; ``cpu`` for a module without any."""
        return str(self._home() or "cpu")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of structure, code, weights, buffers, attributes and bound inputs.

        Where some of it cannot be looked into, of the output on two fixed images too.
        """
        return self._identity()[0]

    @property
    def cacheable(self) -> bool:
        """Whether the fingerprint stands for this network; not where a part is hidden and runs differ."""
        return self._identity()[1]

    def _identity(self) -> tuple[str, bool]:
        digest = Digest()
        digest.add("module", self._module)
        digest.add("bound", {**self._inputs.feed, "channels": self.channels, "tensor": self._output_tensor})
        if not digest.opaque:
            return digest.hexdigest(), True
        try:
            output, again = self._probed_output(), self._probed_output()
        except ModelError:
            output, again = b"", None
        digest.add("output", output if output == again else self._token)
        return digest.hexdigest(), output == again

    def _probed_output(self) -> bytes | None:
        """What the network makes of two fixed images, as they come."""
        noise = np.random.default_rng(0).random((1, 1, *self.probe_size), dtype=np.float32)
        outputs = []
        with self._context(False):
            for image in (noise, 2000.0 * noise - 1000.0):
                u = self._channelled(self._native(image))
                outputs.append(self._run(u, [OUTPUT], False)[OUTPUT].cpu().numpy().tobytes())
        return b"".join(outputs)

    # -- running --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _context(self, grad: bool) -> Iterator[None]:
        # inference_mode tensors could not be used for fitting later.
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(grad))
            stack.enter_context(differentiable() if grad else eagerly())
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

    def _set_tile(self, size: tuple[int, int] | None) -> None:
        self._tile = size
        self._tilers.clear()

    def _run(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, torch.Tensor]:
        if self._tile is None or tuple(x.shape[-2:]) == self._tile:
            return self._whole(x, names, grad)
        wanted = tuple(names)
        if wanted not in self._tilers:
            rows = [layer.shape[1] for layer in self.layers if layer.tappable and len(layer.shape) == 3]

            def probe(image: np.ndarray) -> list[torch.Tensor]:
                return [*self._whole(self._native(image), wanted, False).values()]

            with torch.no_grad():
                self._tilers[wanted] = Tiler(
                    probe, wanted, self._tile, self.channels, stride_within(self._tile[0], rows)
                )
        values = self._tilers[wanted](x, lambda part: [*self._whole(part, wanted, grad).values()])
        return dict(zip(wanted, values, strict=True))

    def _whole(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, torch.Tensor]:
        """One batch of a size that the network takes; what was asked for, in that order."""
        tensors: dict[str, torch.Tensor] = {}
        taps: dict[nn.Module, _Tap] = {}
        inner = [name for name in names if name != OUTPUT]
        for name in inner:
            call = self._listed().calls[name]
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
                    tensors[name] = snapshot(tensor, grad)
            tap.calls += 1
            if stop and len(tensors) == len(inner):
                raise _Enough

        def restart() -> None:
            tensors.clear()
            for tap in taps.values():
                tap.calls = 0

        with contextlib.ExitStack() as stack:
            training = grad and any(part.training for part in self._module.modules())
            stack.enter_context(self._preserved())
            # What a network computes again for gradients, it computes once it is in training mode again.
            root, parts = stand_in(self._module) if training else (self._module, {})
            for module, tap in [*taps.items()]:
                taps[parts.get(module, module)] = tap
                stack.callback(parts.get(module, module).register_forward_hook(record).remove)
            try:
                value = self._forward(x, root, restart)
            except _Enough:
                value = None
        missing = [name for name in inner if name not in tensors]
        if missing:
            raise LayerError(
                f"layer {missing[0]!r} did not run for these images: the network branches, or runs it in "
                "compiled code",
                missing[0],
            )
        if OUTPUT in names:
            tensors[OUTPUT] = snapshot(self._image_tensor(value, x), grad)
        if grad and x.grad_fn is not None:
            self._refuse_cut(x, tensors)
        return {name: tensors[name] for name in names}

    def _refuse_cut(self, x: torch.Tensor, values: Mapping[str, torch.Tensor]) -> None:
        """Refuse gradients of what changes with the image and hides it: they would be zero, or missing.

        Raises:
            UnsupportedModelError: No gradient flows to the image.
        """
        for name, z in values.items():
            if name not in self._listed().still and not depends(z, x):
                raise UnsupportedModelError(
                    f"{name!r} of {self.name!r} has no gradient by the image, though it changes with it: the "
                    "network runs there under torch.no_grad() or inference_mode, detaches, or rounds; change "
                    "its forward, or analyse it with --refine 0"
                )

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

    def _output_of(self, x: torch.Tensor, restart: Callable[[], None]) -> torch.Tensor:
        return self._image_tensor(self._forward(x, self._module, restart), x)

    def _forward(self, x: torch.Tensor, root: nn.Module, restart: Callable[[], None]) -> Any:
        """The module on one batch, in its own type; its errors become ModelError.

        ``restart`` is called before each try: what a failed one showed is forgotten.
        """
        x = x.to(self._dtype())
        failure: Exception | None = None
        # What ran before comes first; the form that one image takes need not be that of several.
        known = () if self._way is None else (self._way,)
        for way in (*known, *(way for way in self._inputs.ways() if way not in known)):
            restart()
            try:
                image, extra = self._inputs.given(way, x.clone())  # a network may write into it
                with self._inputs.watched(root):
                    # Through __call__, never forward(): hooks of the root fire too.
                    value = root(image, **extra)
                self._inputs.check(value, x)
            except (LayerError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                failure = failure or error
                continue
            self._way = way
            return value
        assert failure is not None
        text = str(failure).strip().splitlines()
        raise ModelError(
            f"{self.name!r} fails on an image of shape {tuple(x.shape)}: {type(failure).__name__}"
            f"{': ' + text[0] if text else ''}{self._inputs.hint()}"
        ) from failure

    def _image_tensor(self, value: Any, x: torch.Tensor) -> torch.Tensor:
        size = (int(x.shape[-2]), int(x.shape[-1]))
        image, notice = image_in(value, self.name, self._output_tensor, size)
        if notice:
            self._notify(notice)
        return image

    def _home(self) -> torch.device | None:
        for tensor in chain(self._module.parameters(), self._module.buffers()):
            empty = "lazy modules" if nn.parameter.is_lazy(tensor) else "device meta"
            if empty == "device meta" and tensor.device.type != "meta":
                return tensor.device
            raise ModelError(f"{self.name!r} has no weights yet ({empty}); load them first, or run it once")
        return None

    def _dtype(self) -> torch.dtype:
        for tensor in chain(self._module.parameters(), self._module.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float32


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
