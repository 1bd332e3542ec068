"""The patches that a fit learns from, and their codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.base import Denoiser
from ctinv.invariance.data.tiling import STEP
from ctinv.invariance.networks.vae import VAE
from torch import Tensor

__all__ = ["Place", "denoised_slices", "draw_places", "encode_places", "rolled"]

Place = tuple[int, int, int]
"""Slice, row and column of a patch's first pixel."""


def draw_places(images: Sequence[Image], count: int, patch: int, rng: np.random.Generator) -> list[Place]:
    """Places (slice, row, column) of patches, on the tile step, mostly inside the body.

    A patch without tissue (no pixel above -900 HU) is drawn one time in four.
    """
    places: list[Place] = []
    while len(places) < count:
        k = int(rng.integers(len(images)))
        limits = [(side - patch) // STEP for side in images[k].shape]
        row, column = (int(rng.integers(limit + 1)) * STEP for limit in limits)
        tissue = images[k][row : row + patch : 4, column : column + patch : 4] > -900
        if tissue.any() or rng.random() < 0.25:
            places.append((k, row, column))
    return places


def rolled(image: Image, rng: np.random.Generator) -> Image:
    """The slice moved round by a random amount.

    A layer may be blind at some places of the image, and the embedder is told the place; what
    anatomy is to be expected must not depend on it, as it does not in a prior of patches.
    """
    shift = tuple(int(rng.integers(side)) for side in image.shape)
    return np.ascontiguousarray(np.roll(image, shift, (0, 1)))


def encode_places(
    vae: VAE, images: Sequence[Image], places: Sequence[Place], denoised: Sequence[Image] | None = None
) -> tuple[Tensor, Tensor]:
    """Posterior mean and standard deviation of the codes of patches, each (N, code_dim).

    Arguments:
        vae: The autoencoder.
        images: Slices (H, W) in HU.
        places: Where the patches lie.
        denoised: ``f(x)`` of the slices in HU; a conditional autoencoder needs it.
    """
    p = vae.config.patch

    def tiles(slices: Sequence[Image], some: Sequence[Place]) -> Tensor:
        return torch.from_numpy(np.stack([slices[k][i : i + p, j : j + p] for k, i, j in some])[:, None])

    parts = []
    for start in range(0, len(places), 256):
        some = places[start : start + 256]
        guide = None if denoised is None else tiles(denoised, some)
        with torch.no_grad():
            parts.append(vae.posterior(tiles(images, some), guide))
    mean, log_var = (torch.cat(part) for part in zip(*parts, strict=True))
    return mean, (0.5 * log_var).exp()


def denoised_slices(denoiser: Denoiser, images: Sequence[Image]) -> list[Image]:
    """``f(x)`` of slices (H, W) in HU, slice by slice."""
    return [np.asarray(denoiser.denoise(image[None, None]), np.float32)[0, 0] for image in images]
