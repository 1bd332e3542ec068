"""Drawing invariances over a whole slice: invert the flow, decode, put the tiles together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.invariance.data.tiling import Grid, grid
from ctinv.invariance.infra.memory import Budget
from ctinv.invariance.infra.threads import divided
from ctinv.invariance.networks.fitted import FittedLayer
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.representation.maps import as_map, coordinates
from ctinv.invariance.representation.reader import represent
from torch import Tensor

from .moments import Histogram, Moments
from .mosaic import Mosaic
from .sampler import Sampler

__all__ = [
    "Contexts",
    "Drawn",
    "cut_tile",
    "decode_tiles",
    "drawing_threads",
    "guide_slice",
    "one_each",
    "read_back",
    "reconstruct",
    "sample_slice",
    "tile_contexts",
]

_TILES = 16  # reconstructed at once

T = TypeVar("T")


@dataclass(frozen=True)
class Drawn:
    """Statistics and a few whole images of the samples of one slice, in HU.

    Arguments:
        mean: Pixelwise mean, (H, W).
        std: Pixelwise standard deviation, (H, W).
        samples: The kept images, (K, H, W).
        reconstruction: ``D(E(x))``, (H, W).
        quantiles: Pixelwise quantiles, (Q, H, W), where they were asked for.
        reading: What can be read of ``z``, ``x_R``, (H, W), where the layer has a reading.
        decoded: ``D(E(x_R))``, (H, W), likewise.
    """

    mean: Image
    std: Image
    samples: Image
    reconstruction: Image
    quantiles: Image | None = None
    reading: Image | None = None
    decoded: Image | None = None


@dataclass(frozen=True, eq=False)
class Contexts:
    """What the flow is given of a slice, and what was read of it on the way.

    Arguments:
        h: Of every tile, (tiles, context, code size, code size).
        reading: ``x_R`` (H, W) in HU; None where the layer has no reading.
        codes: ``E(x_R)`` of every tile, (tiles, code_dim); None without a reading.
    """

    h: Tensor
    reading: Image | None = None
    codes: Tensor | None = None


@torch.no_grad()
def read_back(fitted: FittedLayer, x: Image) -> Image:
    """``R(Phi(x))`` of a slice (H, W) in HU, for a layer that has a reading.

    Arguments:
        fitted: The fitted bundle.
        x: The slice.

    Raises:
        ValueError: The layer has no reading.
    """
    if fitted.reading is None:
        raise ValueError("the layer has no reading")
    z = represent(fitted.denoiser, fitted.layer, x[None, None])
    image: Image = fitted.reading(z, fitted.geometry, (x.shape[0], x.shape[1]))[0, 0].numpy()
    return image


@torch.no_grad()
def tile_contexts(fitted: FittedLayer, x: Image, tiles: Grid, denoised: Image | None = None) -> Contexts:
    """``h`` of every tile of a slice (H, W) in HU, from one run of the layer where that is enough.

    Arguments:
        fitted: The fitted bundle.
        x: The slice.
        tiles: Its tiles.
        denoised: ``f(x)`` (H, W) in HU, for an autoencoder that depends on it.
    """
    denoiser, layer, geometry = fitted.denoiser, fitted.layer, fitted.geometry
    p, size = tiles.patch, fitted.preset.vae.code_size
    if not geometry.local:
        alone = coordinates([(0, 0)], [(p, p)], p, size)
        parts = (represent(denoiser, layer, x[tile][None, None]) for tile in tiles)
        return Contexts(torch.cat([fitted.embedder(part, alone) for part in parts]))
    z = as_map(represent(denoiser, layer, x[None, None]))
    reading = codes = None
    if fitted.reading is not None:
        reading = fitted.reading(z, geometry, tiles.shape)[0, 0].numpy()
        codes = _encoded(fitted.vae, reading, tiles, denoised)
    contexts = []
    for number, (row, column) in enumerate(tiles.corners):
        place = coordinates([(row, column)], [tiles.shape], p, size)
        code = None if codes is None else codes[number : number + 1]
        contexts.append(fitted.embedder(geometry.cut(z[0], row, column)[None], place, code))
    return Contexts(torch.cat(contexts), reading, codes)


def _encoded(vae: VAE, x: Image, tiles: Grid, denoised: Image | None) -> Tensor:
    """The codes (tiles, code_dim) of a slice's tiles."""
    return torch.cat(
        [
            vae.encode(torch.cat([cut_tile(x, tile) for tile in some]), _guide(denoised, some))
            for some in _groups(tiles)
        ]
    )


def _groups(tiles: Grid) -> Iterator[list[tuple[slice, slice]]]:
    places = list(tiles)
    for start in range(0, len(places), _TILES):
        yield places[start : start + _TILES]


def _guide(denoised: Image | None, tiles: Sequence[tuple[slice, slice]]) -> Tensor | None:
    return None if denoised is None else torch.cat([cut_tile(denoised, tile) for tile in tiles])


@torch.no_grad()
def reconstruct(vae: VAE, x: Image, tiles: Grid, denoised: Image | None = None) -> Image:
    """``D(E(x))`` of a padded slice (H, W) in HU, tile by tile.

    Arguments:
        vae: The autoencoder.
        x: The slice.
        tiles: Its tiles.
        denoised: ``f(x)`` (H, W) in HU, for an autoencoder that depends on it.
    """
    return decode_tiles(vae, _encoded(vae, x, tiles, denoised), tiles, denoised)


@torch.no_grad()
def decode_tiles(vae: VAE, codes: Tensor, tiles: Grid, denoised: Image | None = None) -> Image:
    """An image (H, W) in HU from the codes of its tiles.

    Arguments:
        vae: The autoencoder.
        codes: Of the tiles in order, (tiles, code_dim).
        tiles: The tiles.
        denoised: ``f(x)`` (H, W) in HU, for an autoencoder that depends on it.
    """
    mosaic = Mosaic(tiles, 0)
    for some, code in zip(_groups(tiles), codes.split(_TILES), strict=True):
        for tile, image in zip(some, vae.decode(code, _guide(denoised, some)).numpy(), strict=True):
            mosaic.add(tile, image)
    return mosaic.mean


def guide_slice(fitted: FittedLayer, x: Image) -> Image | None:
    """``f(x)`` (H, W) in HU of a slice, for an autoencoder that depends on it; None for others."""
    if not fitted.preset.vae.conditional:
        return None
    return np.asarray(fitted.denoiser.denoise(x[None, None]), dtype=np.float32)[0, 0]


def cut_tile(image: Image, tile: tuple[slice, slice]) -> Tensor:
    """One tile of a slice (H, W), (1, 1, p, p).

    Arguments:
        image: The slice, HU.
        tile: Its rows and columns.
    """
    return torch.from_numpy(np.ascontiguousarray(image[tile]))[None, None]


@torch.no_grad()
def sample_slice(
    fitted: FittedLayer,
    x: Image,
    samples: int,
    seed: int,
    keep: int,
    progress: Progress | None = None,
    *,
    quantiles: Sequence[float] = (),
) -> Drawn:
    """Draw invariances of every tile of a slice, in memory that does not grow with their number.

    Arguments:
        fitted: The fitted bundle.
        x: Slice (H, W) in HU, padded (see :func:`ctinv.invariance.data.tiling.pad_to`).
        samples: Draws per tile.
        seed: Decides the draws, together with the tile's number.
        keep: Whole images to keep.
        progress: Called with (stage, done, total).
        quantiles: Shares between 0 and 1 whose pixelwise quantiles are wanted.
    """
    preset, vae = fitted.preset, fitted.vae
    tiles = grid((x.shape[0], x.shape[1]), preset.vae.patch, preset.tile.overlap)
    denoised = guide_slice(fitted, x)
    contexts = tile_contexts(fitted, x, tiles, denoised)
    budget = Budget(preset.tile.batch, fitted.memory)
    workers = drawing_threads(fitted.flow.mean.device)
    sampler = Sampler(vae, fitted.flow, budget, preset.tile.precision, workers)
    mosaic, places = Mosaic(tiles, keep), list(tiles)

    def draw(number: int) -> tuple[Moments, Image, Histogram | None]:
        guide = None if denoised is None else cut_tile(denoised, places[number])
        moments, histogram = Moments(), Histogram() if quantiles else None
        kept: list[Tensor] = []
        for images in sampler.draw(seed, number, samples, contexts.h[number : number + 1], guide):
            if moments.count < keep:
                kept.append(images[: keep - moments.count].cpu())
            moments.add(images)
            if histogram:
                histogram.add(images)
        first = torch.cat(kept).numpy() if kept else np.zeros((0, tiles.patch, tiles.patch), np.float32)
        return moments, first, histogram

    for number, (moments, kept, histogram) in enumerate(one_each(draw, len(places), workers)):
        bins = histogram.bins if histogram else None
        mosaic.add_moments(places[number], moments.mean, moments.square, kept, bins)
        if progress:
            progress("sampling", number + 1, len(tiles))
    at_quantiles = np.stack([mosaic.quantile(share) for share in quantiles]) if quantiles else None
    reconstruction = reconstruct(vae, x, tiles, denoised)
    decoded = None if contexts.codes is None else decode_tiles(vae, contexts.codes, tiles, denoised)
    maps = mosaic.mean, mosaic.std, mosaic.samples
    return Drawn(*maps, reconstruction, at_quantiles, contexts.reading, decoded)


def drawing_threads(device: torch.device) -> int:
    """How many threads draw tiles: as many as PyTorch has on a processor, one where a GPU draws."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def one_each(work: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """Results in order, by threads with a processor each.

    Operations on a few patches are too small to be divided themselves; and so what comes out does
    not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    try:
        yield from divided(work, count, workers, partial(torch.set_num_threads, 1))
    finally:
        torch.set_num_threads(threads)  # part of it is shared by all threads
