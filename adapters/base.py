"""What every adapter offers: a denoiser whose layers can be observed, in Hounsfield units."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import names as _names
from ._types import INPUT, OUTPUT, Layer, Output, Progress
from .arrays import batches, check_images, is_finite, is_tensor, join, neighbours, pad_reflect, restore
from .calibration import Calibration, calibrate
from .centring import check_centred
from .errors import ImageError, IntensityError, ModelError, RowsError, UnsupportedModelError
from .geometry import Geometry, ramp
from .intensity import CANDIDATES, Intensity
from .output_kind import LEVELS, contradiction, output_kind, reason

__all__ = ["INPUT", "OUTPUT", "Denoiser", "Layer"]


class Denoiser(ABC):
    """A CT denoiser ``f(x) = Psi(Phi(x))`` with named layers.

    Subclasses say how to list layers and how to run; shapes, units, batches and array kinds are
    handled here, once. Images are float32 arrays of shape (N, 1, H, W) in HU, torch or numpy;
    results are float32, of the same kind and on the same device as the image.

    Arguments:
        name: What to call the model in reports.
        intensity: The model's units; None while they are unknown (see :meth:`calibrate`).
        output: Whether the network returns the image or the noise to subtract from it; None where
            this is not known: it is then probed, and announced in :attr:`notices`.
        channels: Input channels of the network. Where this is not 1, the grey image is repeated and
            the output averaged; for a network that returns one channel, the channels are slices.
        fixed_size: Height and width, for a model that takes no other; None where it is free.
    """

    kind: str = "abstract"
    differentiable: bool = False

    def __init__(
        self,
        name: str,
        intensity: Intensity | None,
        output: Output | None = "image",
        *,
        channels: int = 1,
        fixed_size: tuple[int | None, int | None] | None = None,
    ) -> None:
        if output not in ("image", "residual", None):
            raise IntensityError(f"output is 'image', 'residual' or None (find out), not {output!r}")
        self.name = name
        self.intensity = intensity
        self.output: Output | None = output
        self.channels = channels
        self.notices: list[str] = []
        self._looked_up: tuple[Sequence[Layer], dict[str, str]] = ((), {})
        self._output_stated = output is not None
        self._output_checked = self._centred = self._series = self._alone = False
        self._geometry = Geometry(self._output_shape, self._probe_image, fixed_size, self._notify)

    # -- what a subclass provides ---------------------------------------------------------------

    @property
    @abstractmethod
    def layers(self) -> tuple[Layer, ...]:
        """Every layer, in execution order."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what decides the numbers: weights and structure, not file names."""

    @property
    def cacheable(self) -> bool:
        """Whether two models with this fingerprint are the same, so that answers may be kept for it."""
        return True

    @property
    @abstractmethod
    def device(self) -> str:
        """Where the model really runs, for example ``cpu`` or ``cuda:0``."""

    @abstractmethod
    def _native(self, x: Any) -> Any:
        """An image of any array kind as this adapter's own kind and device, float32."""

    @abstractmethod
    def _run(self, x: Any, names: Sequence[str], grad: bool) -> Mapping[str, Any]:
        """Run one native batch in model units; ``names`` are canonical layer names or OUTPUT.

        Returned arrays are native float32 snapshots that nothing changes later. OUTPUT is what the
        network returns, in model units. A failing network raises :class:`ModelError`.
        """

    def _mixes(self, names: Sequence[str]) -> bool:
        """Whether one of these reads an image otherwise beside others than alone."""
        return False

    def _context(self, grad: bool) -> contextlib.AbstractContextManager[None]:
        """What must hold around a whole call, over all its batches."""
        return contextlib.nullcontext()

    # -- what users call ------------------------------------------------------------------------

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of the image with which layers are listed."""
        return self._geometry.probe_size

    @property
    def crop(self) -> int:
        """Pixels per side that ``f(x)`` lacks, for networks without padding; the rest is centred."""
        return self._geometry.crop

    def resolve(self, layer: str) -> Layer:
        """Find a layer by any of its names; :func:`ctinv.adapters.names.resolve` tells the order.

        Raises:
            LayerError: No layer, or several, answer to this name, or it cannot be read.
        """
        resolved, how = _names.resolve(layer, () if layer in (INPUT, OUTPUT) else self.layers)
        if how == "ordinal":
            self._notify(f"layer {layer!r} is taken as {resolved.name!r}, by counting in execution order")
        return resolved

    def twin(self, layer: str) -> tuple[Denoiser, str] | None:
        """The same layer in PyTorch: a denoiser and the layer's name in it, or None.

        A denoiser that is no PyTorch module may be rebuilt as one, up to this layer. The twin has
        gradients, and its arithmetic is that of the module the denoiser was exported from.

        Raises:
            LayerError: No layer, or several, answer to this name.
        """
        self.resolve(layer)
        return None

    def apart(self) -> Denoiser:
        """This denoiser for images that are no series of slices: each stands for its own neighbours.

        Only networks that take several neighbouring slices make a difference between the two.
        """
        if not self._takes_series():
            return self
        single = copy.copy(self)
        single._alone = True
        single._notify("each slice is analysed by itself and stands for its own neighbours")
        return single

    def features(
        self, x: Any, layer: str | Sequence[str], *, batch_size: int | None = None, grad: bool = False
    ) -> Any:
        """Read ``z = Phi(x)`` at one or several layers.

        A network that takes neighbouring slices takes ``x`` for a series, in order.

        Arguments:
            x: Images (N, 1, H, W), HU.
            layer: A layer's name, or several names.
            batch_size: Images per run; None for about a million pixels.
            grad: Keep the graph, so that ``z`` can be differentiated by ``x`` (PyTorch models only).

        Returns:
            ``z``, in the network's own units, its first axis the images'. For several names a dict
            under the names given. ``@input`` gives ``x`` and ``@output`` gives ``f(x)``, both in HU.

        Raises:
            ImageError: ``x`` is not a finite float array (N, 1, H, W).
            LayerError: A name finds no layer, or the layer cannot be read.
            IntensityError: The model's units are unknown.
            UnsupportedModelError: ``grad`` with a model that cannot be differentiated.
        """
        wanted = [layer] if isinstance(layer, str) else list(layer)
        check_images(x)
        self._check_grad(x, grad)
        intensity = self._units()
        self._geometry.given(x.shape[-2:])
        canonical = {name: self._canonical(name) for name in wanted}
        unique = list(dict.fromkeys(canonical.values()))
        parts: dict[str, list[Any]] = {name: [] for name in unique}
        with self._context(grad):
            if OUTPUT in unique:
                self._settle_output()
            run = [name for name in unique if name != INPUT]
            singly = bool(run) and self._mixes(run) and len(x) > 1
            series = bool(run) and not self._alone and self._takes_series()
            start = 0
            for chunk in batches(x, 1 if singly else batch_size):
                given = neighbours(x, start, len(chunk), self.channels) if series else chunk
                start += len(chunk)
                for name, z in self._observe(given, unique, intensity, grad).items():
                    parts[name].append(restore(z, x))
            results = {name: self._joined(name, parts[name], len(x), singly) for name in unique}
        if isinstance(layer, str):
            return results[canonical[layer]]
        return {name: results[canonical[name]] for name in wanted}

    def denoise(self, x: Any, *, batch_size: int | None = None) -> Any:
        """Denoise images: ``f(x)``, HU, (N, 1, H, W), smaller by :attr:`crop` on each side.

        Arguments:
            x: Images (N, 1, H, W), HU.
            batch_size: Images per run; None for about a million pixels.

        Raises:
            ImageError: ``x`` is not a finite float array (N, 1, H, W).
            IntensityError: The model's units are unknown.
            ModelError: The network returns NaN or infinite values.
        """
        return self.features(x, OUTPUT, batch_size=batch_size)

    def calibrate(
        self,
        images: Any,
        *,
        candidates: Sequence[str] = CANDIDATES,
        output: Output | None = None,
        progress: Progress | None = None,
    ) -> Calibration:
        """Find out the model's units, and whether it returns the image or the noise, on CT images.

        The choice is set on this denoiser and told in :attr:`notices`. How it is made is told at
        :func:`ctinv.adapters.calibration.calibrate`.

        Arguments:
            images: CT images (N, 1, H, W), HU, with soft tissue in them; a handful is enough.
            candidates: Conventions to try, the most common first.
            output: What the network returns; None for what was said when it was made, else both
                are tried.
            progress: Told stage, done and total.

        Raises:
            ImageError: Not images, or no soft tissue in them.
            IntensityError: No convention makes a denoiser of the model, or several do as well.
        """
        check_images(images)
        stated = output or (self.output if self._output_stated else None)
        best = calibrate(
            self._tried,
            restore(images, np.empty(0)),
            candidates=candidates,
            outputs=(stated,) if stated else ("image", "residual"),
            size=self._geometry.fixed,
            progress=progress,
        )
        self.intensity, self.output = best.intensity, best.output
        self._notify(best.told())
        return best

    # -- how they work --------------------------------------------------------------------------

    def _notify(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    def _canonical(self, name: str) -> str:
        """A layer's own name; looked up once while the layers are the same."""
        if name in (INPUT, OUTPUT):
            return name
        layers = self.layers
        if self._looked_up[0] is not layers:
            self._looked_up = (layers, {})
        known = self._looked_up[1]
        if name not in known:
            known[name] = self.resolve(name).name
        return known[name]

    def _units(self) -> Intensity:
        if self.intensity is None:
            raise IntensityError(
                f"the units of {self.name!r} are unknown; give intensity= (hu, unit:LO:HI, "
                "standard:MEAN:STD, offset:K...) or call calibrate(images) with some CT images in HU"
            )
        return self.intensity

    def _check_grad(self, x: Any, grad: bool) -> None:
        if grad and not self.differentiable:
            raise UnsupportedModelError(
                f"{self.name!r} ({self.kind}) cannot be differentiated; use the PyTorch model for gradients"
            )
        if grad and not is_tensor(x):
            raise ImageError("grad=True needs images as a torch tensor, not a numpy array")

    def _observe(self, chunk: Any, names: Sequence[str], intensity: Intensity, grad: bool) -> dict[str, Any]:
        """One batch of images in HU to native arrays, INPUT and OUTPUT in HU."""
        given = self._native(chunk)
        middle = given.shape[1] // 2  # of a slice and its neighbours
        x = given[:, middle : middle + 1]
        run = [name for name in names if name != INPUT]
        tensors: dict[str, Any] = {}
        if run:
            u = self._channelled(intensity.to_model(given))
            pads = self._geometry.pads(u)
            tensors.update(self._run(pad_reflect(u, *pads), run, grad))
        if OUTPUT in tensors:
            tensors[OUTPUT] = self._image(x, tensors[OUTPUT], intensity)
            if not is_finite(tensors[OUTPUT]):
                raise ModelError(
                    f"{self.name!r} returns NaN or infinite values for these images; check intensity=, and "
                    "that it computes in float32 and without roots or logarithms of negative values"
                )
        if INPUT in names:
            tensors[INPUT] = x + 0.0  # a copy: nobody's later edit of x may reach it
        return tensors

    def _image(self, x: Any, raw: Any, intensity: Intensity, output: Output | None = None) -> Any:
        """What the network returned, as an image in HU; ``x`` is its input, HU."""
        output = output or self.output
        if raw.shape[1] != 1:
            raw = raw.mean(axis=1, keepdims=True)
        crop = self.crop
        height, width = x.shape[-2] - 2 * crop, x.shape[-1] - 2 * crop
        raw = raw[..., :height, :width]
        if output == "residual":
            # Noise is a difference of intensities: it has the scale of the units, not their shift.
            return x[..., crop : crop + height, crop : crop + width] - raw * intensity.scale
        return intensity.to_hu(raw)

    def _tried(self, x: Any, intensity: Intensity, outputs: Sequence[Output]) -> list[Any]:
        """Numpy images in HU, denoised under a convention that is only tried."""
        parts: list[list[Any]] = [[] for _ in outputs]
        with self._context(False):
            for chunk in batches(x, 1 if self._mixes([OUTPUT]) else None):
                own = self._native(chunk)
                u = self._channelled(intensity.to_model(own))
                raw = self._read_output(pad_reflect(u, *self._geometry.pads(u)))
                for part, output in zip(parts, outputs, strict=True):
                    part.append(restore(self._image(own, raw, intensity, output), x))
        return [join(part) for part in parts]

    def _channelled(self, u: Any) -> Any:
        return u if u.shape[1] == self.channels else u[:, [0] * self.channels]

    def _takes_series(self) -> bool:
        if self.channels > 1:
            _ = self.probe_size  # a run shows how many channels come back
        return self._series

    def _joined(self, name: str, parts: Sequence[Any], count: int, singly: bool) -> Any:
        if len(parts) == 1 and parts[0].ndim and parts[0].shape[0] == count:
            return parts[0]
        rows = [int(part.shape[0]) if part.ndim else 0 for part in parts]
        if sum(rows) != count and ((len(parts) > 1 and not singly) or sum(rows) % count):
            raise RowsError(
                f"layer {name!r} returns {sum(rows)} rows for {count} images, which cannot be told apart by "
                "image; give the images one by one, or choose another layer"
            )
        return join(parts)

    def _probe_image(self, height: int, width: int) -> Any:
        return self._channelled(self._native(ramp(height, width)))

    def _read_output(self, u: Any) -> Any:
        return self._run(u, [OUTPUT], False)[OUTPUT]

    def _output_shape(self, u: Any) -> tuple[int, ...]:
        with self._context(False):
            shape = tuple(int(n) for n in self._read_output(u).shape)
            if len(shape) == 4 and shape[-1] < u.shape[-1] and not self._centred:
                self._centred = check_centred(self._read_output, u, self.name, self._notify)
        if len(shape) != 4 or shape[0] != u.shape[0] or shape[1] not in (1, self.channels):
            raise UnsupportedModelError(
                f"{self.name!r} turns an image of shape {tuple(u.shape)} into {shape}; a denoiser returns "
                "(N, C, H, W) with as many channels as it takes, or one"
            )
        if shape[1] < self.channels and not self._series:
            self._series = True
            self._notify(
                f"the network takes {self.channels} slices and returns one: images are taken for a series, "
                "in order, that gives each slice its neighbours; at its ends the end slice is repeated"
            )
        return shape

    def _settle_output(self) -> None:
        """Find out, once, whether constant images come back or are taken for noise."""
        if self._output_checked:
            return
        self._output_checked = True
        intensity = self._units()
        raw = []
        for level in LEVELS:
            flat = np.full((1, 1, *self.probe_size), level, dtype=np.float32)
            raw.append(self._read_output(self._channelled(intensity.to_model(self._native(flat)))))
        verdict = output_kind(raw, intensity.scale)
        if self.output is None:
            self.output = verdict or "image"
            self._notify(reason(self.output, verdict))
        elif verdict is not None and verdict != self.output:
            self._notify(contradiction(self.output, verdict))
