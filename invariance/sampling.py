"""Drawing invariances over a whole slice: invert the flow, decode, put the tiles together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .embed import as_map, coordinates
from .representation import represent
from .tiles import Grid, Mosaic, grid
from .vae import VAE

if TYPE_CHECKING:
    from .explainer import Explainer

__all__ = ["Drawn", "invariance_noise", "reconstruct", "sample_slice", "tile_contexts"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Drawn:
    """Statistics and a few whole images of the samples of one slice, in HU.

    Arguments:
        mean: Pixelwise mean, (H, W).
        std: Pixelwise standard deviation, (H, W).
        samples: The kept images, (K, H, W).
        reconstruction: ``D(E(x))``, (H, W).
    """

    mean: Image
    std: Image
    samples: Image
    reconstruction: Image


def invariance_noise(seed: int, tile: int, count: int, features: int) -> Tensor:
    """``v ~ N(0, 1)``, (count, features), a function of seed and tile alone."""
    rng = np.random.default_rng([seed, 3, tile])
    return torch.from_numpy(rng.standard_normal((count, features), dtype=np.float32))


@torch.no_grad()
def tile_contexts(explainer: Explainer, x: Image, tiles: Grid) -> Tensor:
    """``h = H(z)`` of every tile of a slice (H, W) in HU: (tiles, context, code size, code size)."""
    denoiser, layer, geometry = explainer.denoiser, explainer.layer, explainer.geometry
    p, size = tiles.patch, explainer.preset.vae.code_size
    contexts = []
    if geometry.local:
        z = as_map(represent(denoiser, layer, x[None, None]))[0]
        for row, column in tiles.corners:
            where = coordinates([(row, column)], [tiles.shape], p, size)
            contexts.append(explainer.embedder(geometry.cut(z, row, column)[None], where))
    else:
        alone = coordinates([(0, 0)], [(p, p)], p, size)
        for tile in tiles:
            contexts.append(explainer.embedder(represent(denoiser, layer, x[tile][None, None]), alone))
    return torch.cat(contexts)


@torch.no_grad()
def reconstruct(vae: VAE, x: Image, tiles: Grid) -> Image:
    """``D(E(x))`` of a padded slice (H, W) in HU, tile by tile."""
    mosaic = Mosaic(tiles, 0)
    for tile in tiles:
        patch = torch.from_numpy(np.ascontiguousarray(x[tile]))[None, None]
        mosaic.add(tile, vae.decode(vae.encode(patch))[:, 0].numpy())
    return mosaic.mean


@torch.no_grad()
def sample_slice(
    explainer: Explainer,
    x: Image,
    samples: int,
    seed: int,
    keep: int,
    progress: Progress | None = None,
) -> Drawn:
    """Draw invariances of every tile of a slice.

    Arguments:
        explainer: The fitted bundle.
        x: Slice (H, W) in HU, padded (see :func:`ctinv.invariance.tiles.pad_to`).
        samples: Draws per tile.
        seed: Decides the draws, together with the tile's number.
        keep: Whole images to keep.
        progress: Called with (stage, done, total).
    """
    preset, vae, flow = explainer.preset, explainer.vae, explainer.flow
    tiles = grid((x.shape[0], x.shape[1]), preset.vae.patch, preset.tile.overlap)
    contexts = tile_contexts(explainer, x, tiles)
    mosaic = Mosaic(tiles, keep)
    batch = preset.tile.batch
    for number, tile in enumerate(tiles):
        v = invariance_noise(seed, number, samples, flow.features)
        h = contexts[number : number + 1]
        decoded = [vae.decode(flow.inverse(part, h))[:, 0].numpy() for part in v.split(batch)]
        mosaic.add(tile, np.concatenate(decoded))
        if progress:
            progress("sampling", number + 1, len(tiles))
    return Drawn(mosaic.mean, mosaic.std, mosaic.samples, reconstruct(vae, x, tiles))
