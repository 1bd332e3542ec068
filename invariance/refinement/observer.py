"""What a layer sees: its standardised output, and the Jacobian of it where there are gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from ctinv.adapters.base import Denoiser
from ctinv.invariance.representation.maps import as_map
from ctinv.invariance.representation.reader import Looker
from torch import Tensor

from .jacobian import Linearised

__all__ = ["ChannelStatistics", "Observer", "Standard"]


class ChannelStatistics(Protocol):
    """Mean and spread of a layer's channels, (C, 1, 1) each; embedders hold those of the fitting data."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def std(self) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Standard:
    """Channel statistics that are known without a fit: those of one representation.

    Arguments:
        mean: Mean of each channel, (C, 1, 1).
        std: Spread of each channel over its places, (C, 1, 1); infinite for one that never changes.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, z: Tensor) -> Standard:
        """The statistics of representations (N, ...); a vector, which has no places, is left as it is."""
        maps = as_map(z).float()
        if maps.shape[0] * maps[0, 0].numel() == 1:
            return cls(torch.zeros_like(maps[0]), torch.ones_like(maps[0]))
        std, mean = torch.std_mean(maps, (0, 2, 3), keepdim=True)
        std = torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.inf)
        return cls(mean[0], std[0])


class Observer:
    """``Phi`` at one layer with zero mean and unit spread per channel on the fitting data.

    A plain ONNX graph is looked at through its PyTorch twin, which has gradients.

    Arguments:
        denoiser: The denoiser; kept as ``denoiser``.
        layer: Canonical layer name; kept as ``layer``.
        statistics: The channels' mean and spread.
        patch: For a layer whose output is not a map over the image: the side of the patches that
            it is shown instead of the image, next to each other.
    """

    def __init__(
        self, denoiser: Denoiser, layer: str, statistics: ChannelStatistics, patch: int | None = None
    ) -> None:
        self.denoiser, self.layer = denoiser, layer
        source, inner = denoiser.twin(layer) or (denoiser, layer)
        self._look, self._inner = Looker(source), inner
        self._mean, self._scale = statistics.mean, statistics.std.reciprocal()
        self._patch = patch

    @property
    def whole(self) -> bool:
        """Whether the layer is shown the image as it is, not patches of it."""
        return self._patch is None

    @property
    def differentiable(self) -> bool:
        """Whether :meth:`linearise` works."""
        return self._look.denoiser.differentiable

    def _see(self, x: Tensor, grad: bool) -> Tensor:
        if self._patch is not None and x.shape[-2:] != (self._patch, self._patch):
            return self._see(_patches(x, self._patch), grad)
        z = self._look(x, self._inner, grad=grad, batch_size=len(x))
        return (as_map(z).to(self._mean) - self._mean) * self._scale

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, 1, H, W) in HU to (N, C, h, w); of a layer shown patches, to (N * patches, C, h, w)."""
        return self._see(x, False)

    def linearise(self, x: Tensor) -> Linearised:
        """The Jacobian at images (N, 1, H, W) in HU.

        Raises:
            UnsupportedModelError: The denoiser has no gradients.
        """
        return Linearised(lambda image: self._see(image, True), x)


def _patches(x: Tensor, side: int) -> Tensor:
    """Images (N, 1, H, W) as patches, (N * patches, 1, side, side); the last in a row may overlap."""
    height, width = x.shape[-2:]
    corners = [
        (min(i, height - side), min(j, width - side))
        for i in range(0, height, side)
        for j in range(0, width, side)
    ]
    return torch.stack([x[..., i : i + side, j : j + side] for i, j in corners], 1).flatten(0, 1)
