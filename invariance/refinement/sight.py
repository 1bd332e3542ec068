"""Layers that look at one slice: what noise does to them there, and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.base import Denoiser
from ctinv.invariance.data.simulation.noise import noise_like
from ctinv.invariance.data.tiling import pad_to
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.networks.fitted import FittedLayer
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.reader import represent
from torch import Tensor

from .observer import ChannelStatistics, Observer, Standard

__all__ = ["Joint", "Sight"]

NOISES = 3
"""Noise realisations that a layer's move is compared with."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sight:
    """A layer that looks at one slice.

    Arguments:
        observer: The layer.
        x: The slice (H, W), HU, extended by its mirror image so that strided layers fit.
        noise: Noise realisations of the slice, (3, H, W), HU.
        shape: Height and width of the slice before it was extended.
        stated: How far noise moves the layer on average, where that is known without asking the layer.
    """

    observer: Observer
    x: Image
    noise: Image
    shape: tuple[int, int]
    stated: float | None = None

    @cached_property
    def moves(self) -> float:
        """How far noise moves the layer on average."""
        if self.stated is not None:
            return self.stated
        return float(np.mean([float(self.moved(one).norm()) for one in self.noise]))

    @cached_property
    def z(self) -> Tensor:
        """What the layer says of the slice."""
        return self.observer(torch.from_numpy(self.x)[None, None])

    @classmethod
    def of(
        cls,
        denoiser: Denoiser,
        layer: str,
        x: Image,
        *,
        seed: int = 0,
        spacing: tuple[float, float] | None = None,
        patch: int = 64,
        statistics: ChannelStatistics | None = None,
        noise: Image | None = None,
    ) -> Sight:
        """A layer at a slice, with the noise that an analysis of the same seed draws.

        Arguments:
            denoiser: The denoiser.
            layer: Its layer.
            x: The slice (H, W), HU.
            seed: Draws the noise.
            spacing: Row and column spacing in mm, where known.
            patch: Side of the patches that a layer is shown whose output is no map of the image.
            statistics: Its channels' mean and spread; those at this slice where None.
            noise: The noise where another layer's is to be used again, (3, H, W) of the extended slice, HU.
        """
        whole = np.array(pad_to(x, patch))  # records are read-only, which PyTorch does not take
        name = denoiser.resolve(layer).name
        z = represent(denoiser, name, whole[None, None])
        local = probe_geometry(z, (whole.shape[0], whole.shape[1]), patch).local
        known = Standard.of(z) if statistics is None else statistics
        observer = Observer(denoiser, name, known, None if local else patch)
        return cls._looking(observer, whole, x.shape, seed, spacing, noise)

    @classmethod
    def of_fit(
        cls, fitted: FittedLayer, x: Image, *, seed: int = 0, spacing: tuple[float, float] | None = None
    ) -> Sight:
        """The layer of a fit at a slice (H, W) in HU, as an analysis of the same seed sees it."""
        patch = fitted.preset.vae.patch
        observer = Observer(
            fitted.denoiser, fitted.layer, fitted.embedder, None if fitted.geometry.local else patch
        )
        return cls._looking(observer, np.array(pad_to(x, patch)), x.shape, seed, spacing)

    @classmethod
    def _looking(
        cls,
        observer: Observer,
        whole: Image,
        shape: tuple[int, ...],
        seed: int,
        spacing: tuple[float, float] | None,
        noise: Image | None = None,
    ) -> Sight:
        if noise is None:
            noise = noise_like(whole, NOISES, rng(seed, Purpose.NOISE), spacing)
        return cls(observer, whole, noise, (shape[0], shape[1]))

    @property
    def body(self) -> Mask:
        """The body (H, W), or everything where the slice shows none; nothing of what was added."""
        inside = np.zeros(self.x.shape, dtype=bool)
        own = self.own
        inside[own] = self.x[own] > -900 if bool((self.x[own] > -900).any()) else True
        return inside

    @property
    def own(self) -> tuple[slice, slice]:
        """The slice itself, without what it was extended by."""
        return slice(self.shape[0]), slice(self.shape[1])

    def whole(self, image: Image) -> Image:
        """A change of the slice (..., H, W) as one of the extended slice, zero outside."""
        extra = [(0, self.x.shape[k] - self.shape[k]) for k in (0, 1)]
        return np.pad(image, [(0, 0)] * (image.ndim - 2) + extra).astype(np.float32)

    def within(self, region: Mask) -> Sight:
        """The same layer, its moves compared with those by the noise inside a region (H, W) alone.

        What fills a small part of a slice moves a layer less than the noise of the whole slice does,
        however plain it is; beside the noise where it is, it can be judged.
        """
        return replace(self, noise=self.noise * region.astype(np.float32), stated=None)

    def moved(self, change: Image) -> Tensor:
        """How the layer changes with a change (H, W) of the slice, HU."""
        return self.observer(torch.from_numpy(self.x + change)[None, None]) - self.z

    def ratio(self, change: Image) -> float:
        """The noise ratio of a change (H, W) in HU: how far the layer moves, over how far noise moves it."""
        size = float(self.moved(change).norm())
        return size / self.moves if self.moves > 0 else (0.0 if size == 0 else float("inf"))


class Joint(Observer):
    """Several layers as one, whose noise ratio is the root mean square of theirs.

    Arguments:
        sights: The layers, all at one slice; those that noise does not move are left out.
    """

    def __init__(self, sights: Sequence[Sight]) -> None:
        parts = [s for s in sights if s.moves > 0]
        scale = max(len(parts), 1) ** -0.5
        self.layer = " and ".join(s.observer.layer for s in sights)
        self._parts = [(s.observer, scale / s.moves) for s in parts]

    @property
    def whole(self) -> bool:
        """Whether every layer is shown the image as it is."""
        return all(observer.whole for observer, _ in self._parts)

    @property
    def differentiable(self) -> bool:
        """Whether every layer has gradients."""
        return all(observer.differentiable for observer, _ in self._parts)

    def _see(self, x: Tensor, grad: bool) -> Tensor:
        seen = [scale * observer._see(x, grad).reshape(len(x), -1) for observer, scale in self._parts]
        return torch.cat(seen, 1) if seen else torch.zeros(len(x), 1)
