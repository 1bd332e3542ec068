"""``z = Phi(x)`` and how it lies over the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError, ModelError
from torch import Tensor

from .embed import as_map

__all__ = ["Geometry", "Looker", "Reader", "probe_geometry", "represent"]

Image = npt.NDArray[np.float32]


def represent(denoiser: Denoiser, layer: str, x: Image) -> Tensor:
    """``Phi(x)`` of images (N, 1, H, W) in HU, as a tensor on the CPU."""
    return Looker(denoiser)(torch.from_numpy(np.ascontiguousarray(x)), layer).cpu()


class Looker:
    """Reads a denoiser on images laid out channels last, with which its convolutions are faster.

    A network that cannot be run on that layout is given the usual one.

    Arguments:
        denoiser: The denoiser; kept as ``denoiser``.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._last = denoiser.differentiable  # of no use to others

    def __call__(self, x: Tensor, layer: str, *, grad: bool = False, batch_size: int | None = None) -> Tensor:
        """``Phi(x)`` of images (N, 1, H, W) in HU at one layer."""
        return self.several(x, [layer], grad=grad, batch_size=batch_size)[layer]

    def several(
        self, x: Tensor, layers: Sequence[str], *, grad: bool = False, batch_size: int | None = None
    ) -> dict[str, Tensor]:
        """``Phi(x)`` of images (N, 1, H, W) in HU at several layers."""
        if self._last:
            try:
                return self._read(_channels_last(x), layers, grad, batch_size)
            except ModelError:
                self._last = False
        return self._read(x.contiguous(), layers, grad, batch_size)

    def _read(
        self, x: Tensor, layers: Sequence[str], grad: bool, batch_size: int | None
    ) -> dict[str, Tensor]:
        found = self.denoiser.features(x, list(layers), grad=grad, batch_size=batch_size)
        return {layer: torch.as_tensor(z) for layer, z in found.items()}


def _channels_last(x: Tensor) -> Tensor:
    """Images (N, 1, H, W) whose strides say channels last; with one channel the memory is the same."""
    n, channels, height, width = x.shape
    return x.contiguous().as_strided((n, channels, height, width), (height * width, 1, width, 1))


@dataclass(frozen=True)
class Geometry:
    """Where the part of a layer's output lies that belongs to a patch of the image.

    Arguments:
        local: Whether the output is a map laid over the image. If not (vectors, odd token
            counts), the layer is shown each patch on its own.
        scale: Map pixels per image pixel.
        offset: Map position (row, column) of the image's corner; negative for layers whose
            output is smaller than the image all around.
        channels: Channels of the representation.
        size: Height and width of the part for one patch.
    """

    local: bool
    scale: float
    offset: tuple[int, int]
    channels: int
    size: tuple[int, int]

    def cut(self, z: Tensor, row: int, column: int) -> Tensor:
        """The part (C, h, w) of a map (C, H, W) for the patch at an image position."""
        height, width = self.size
        top = round(row * self.scale) + self.offset[0]
        left = round(column * self.scale) + self.offset[1]
        if top >= 0 and left >= 0 and top + height <= z.shape[1] and left + width <= z.shape[2]:
            return z[:, top : top + height, left : left + width]
        rows = torch.arange(top, top + height, device=z.device).clamp(0, z.shape[1] - 1)
        columns = torch.arange(left, left + width, device=z.device).clamp(0, z.shape[2] - 1)
        return z[:, rows][:, :, columns]


def probe_geometry(z: Tensor, shape: tuple[int, int], patch: int) -> Geometry:
    """Tell from one representation how it lies over its image.

    Arguments:
        z: ``Phi(x)`` of one image, (1, ...).
        shape: Height and width of that image.
        patch: Side of the patches.
    """
    channels, height, width = as_map(z).shape[1:]
    scales = {2.0 ** round(np.log2(max(h, 1) / s)) for h, s in zip((height, width), shape, strict=True)}
    scale = scales.pop()
    # Coarser than 1/8 (one map pixel per tile step) a cut no longer says which patch it is of.
    if scales or scale < 1 / 8:
        return Geometry(False, 1.0, (0, 0), channels, (height, width))
    offset = tuple(round((h - s * scale) / 2) for h, s in zip((height, width), shape, strict=True))
    side = max(1, round(patch * scale))
    return Geometry(True, scale, (offset[0], offset[1]), channels, (side, side))


class Reader:
    """Several layers of one denoiser, read in as few runs as their arithmetic allows.

    The same network gives the same numbers, bit by bit, whatever file it comes from and whichever
    layers are read together: a PyTorch network runs once for all layers, and so do the layers of
    an ONNX graph that are rebuilt in PyTorch. ONNX Runtime fuses operators differently for every
    set of outputs, so that what it must run itself runs once per layer.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names of its layers.
    """

    def __init__(self, denoiser: Denoiser, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self._name = denoiser.name
        self._runs: list[tuple[Looker, dict[str, str]]] = []
        together: dict[str, str] = {}
        for layer in self.layers:
            twin = denoiser.twin(layer)
            if twin is None and denoiser.differentiable:
                together[layer] = layer
            else:
                source, name = twin or (denoiser, layer)
                self._runs.append((Looker(source), {layer: name}))
        if together:
            self._runs.append((Looker(denoiser), together))

    def __call__(self, x: Image, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """``Phi(x)`` of images (N, 1, H, W) in HU at these layers, all where None, on the CPU.

        Raises:
            CtinvError: A layer gives values that are not finite.
        """
        wanted = self.layers if layers is None else layers
        images = torch.from_numpy(np.ascontiguousarray(x))
        found: dict[str, Tensor] = {}
        for look, names in self._runs:
            inner = {layer: name for layer, name in names.items() if layer in wanted}
            if inner:
                z = look.several(images, list(inner.values()))
                found.update({layer: z[name].cpu() for layer, name in inner.items()})
        for layer, values in found.items():
            if not bool(values.isfinite().all()):
                raise CtinvError(
                    f"layer {layer} of {self._name} gives values that are not finite on CT; "
                    "check the model's intensity"
                )
        return found
