"""``z = Phi(x)`` and how it lies over the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError, ModelError, RowsError
from torch import Tensor

__all__ = ["Looker", "Reader", "as_listed", "by_image", "represent"]


def represent(denoiser: Denoiser, layer: str, x: Image) -> Tensor:
    """``Phi(x)`` of images (N, 1, H, W) in HU, as a tensor on the CPU."""
    return Looker(denoiser)(torch.from_numpy(np.ascontiguousarray(x)), layer).cpu()


def as_listed(denoiser: Denoiser, layer: str, z: Tensor) -> Tensor:
    """What was read at a layer, (N, ...), with the channels of maps (N, H, W, C) second."""
    return z.movedim(-1, 1) if z.ndim == 4 and denoiser.resolve(layer).channels_last else z


class Looker:
    """Reads a denoiser on images laid out channels last, with which its convolutions are faster.

    A network that cannot be run on that layout is given the usual one. Layers with several rows for
    each image are read image by image.

    Arguments:
        denoiser: The denoiser; kept as ``denoiser``.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._last = denoiser.differentiable  # of no use to others
        self._rows: set[str] = set()  # layers with several rows for each image

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
        if len(x) > 1 and not self._rows.isdisjoint(layers):
            parts = [self._read(one, layers, grad, None) for one in x.split(1)]
            return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}
        try:
            features = self.denoiser.features(x, list(layers), grad=grad, batch_size=batch_size)
        except RowsError:
            features = {}
        tensors = {layer: torch.as_tensor(z) for layer, z in features.items()}
        several = {layer for layer, z in tensors.items() if len(z) != len(x)} or (set(layers) - set(tensors))
        if several and len(x) > 1:
            self._rows |= several
            return self._read(x, layers, grad, batch_size)
        return {
            layer: by_image(z) if layer in several else as_listed(self.denoiser, layer, z)
            for layer, z in tensors.items()
        }


def by_image(z: Tensor) -> Tensor:
    """Rows of one image, such as windows (rows, tokens, C) or (rows, C, h, w), side by side: (1, C, 1, n).

    Their order over the image is the network's own, so that they are no map of it.
    """
    channels = z.flatten(2).transpose(0, 1) if z.ndim > 3 else z.movedim(-1, 0)
    return channels.flatten(1)[None, :, None]


def _channels_last(x: Tensor) -> Tensor:
    """Images (N, 1, H, W) whose strides say channels last; with one channel the memory is the same."""
    n, channels, height, width = x.shape
    return x.contiguous().as_strided((n, channels, height, width), (height * width, 1, width, 1))


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
        features: dict[str, Tensor] = {}
        for look, names in self._runs:
            inner = {layer: name for layer, name in names.items() if layer in wanted}
            if inner:
                z = look.several(images, list(inner.values()))
                features.update({layer: z[name].cpu() for layer, name in inner.items()})
        for layer, values in features.items():
            if not bool(values.isfinite().all()):
                raise CtinvError(
                    f"layer {layer} of {self._name} gives values that are not finite on CT; "
                    "check the model's intensity"
                )
        return features
