"""Whether samples of ``p(x | Phi(x))`` keep a lesion that the image holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.invariance.data.tiling import STEP, Grid, grid, pad_to
from ctinv.invariance.networks.fitted import FittedLayer
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import RHO, noise_change, refine
from ctinv.invariance.sampling.sampler import Sampler
from ctinv.invariance.sampling.slices import cut_tile, guide_slice, tile_contexts

from .lesions import Lesion
from .observation import Observation

__all__ = ["Contrast", "Recovery", "recover", "score"]


_REFINED = 16  # samples that are refined at most
_NOISE = 4


@dataclass(frozen=True)
class Contrast:
    """The contrast of a lesion in a set of images, HU.

    Arguments:
        mean: Mean over the images.
        low: 5 % of the images lie below.
        high: 5 % lie above.
        n: How many images.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Recovery:
    """What is left of a lesion in images that the layer should not tell from the one with it.

    Arguments:
        contrast: The contrast that was put in, HU.
        reconstruction: What the autoencoder keeps of it, HU: no sample of the flow can be better.
        flow: In the flow's samples.
        refined: In samples moved onto the layer's fibre; None where the layer has no gradients.
        rho: Noise ratio of the refined samples.
    """

    contrast: float
    reconstruction: float
    flow: Contrast
    refined: Contrast | None
    rho: float = RHO

    def sentence(self, layer: str) -> str:
        """The finding in words."""
        best = self.refined or self.flow
        share = best.mean / self.contrast
        low, high = sorted((best.low / self.contrast, best.high / self.contrast))
        if low > 0.5:
            said = "keep it"
        elif high < 0.5:
            said = "lose it"
        else:
            said = "may keep it or lose it"
        kind = "refined samples" if self.refined else "the flow's samples"
        return (
            f"Of {self.contrast:+g} HU put in, {kind} of {layer} show {best.mean:+.1f} HU "
            f"({100 * share:.0f} %; {best.low:+.1f} to {best.high:+.1f}): they {said}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score(images: Image, signal: Image) -> npt.NDArray[np.float64]:
    """Contrast of a lesion by a matched filter blind to the tissue's own level and slope.

    Arguments:
        images: (..., h, w), HU.
        signal: The lesion at a contrast of 1 HU, (h, w).

    Returns:
        HU, (...).

    Example:
        >>> disc = np.zeros((16, 16), dtype=np.float32)
        >>> disc[6:10, 6:10] = 1
        >>> rows = np.arange(16, dtype=np.float32)[:, None]
        >>> round(float(score(40 + rows - 15 * disc, disc)), 4)
        -15.0
    """
    rows, columns = np.indices(signal.shape) - np.array(signal.shape)[:, None, None] / 2.0
    level = np.stack([np.ones(signal.size), rows.ravel(), columns.ravel()], 1)
    pattern = signal.ravel().astype(np.float64)
    weights = pattern - level @ np.linalg.lstsq(level, pattern, rcond=None)[0]
    flat = np.asarray(images, dtype=np.float64).reshape(*images.shape[:-2], -1)
    return np.asarray(flat @ weights / (weights @ pattern))


@torch.no_grad()
def recover(
    fitted: FittedLayer,
    place: Observation,
    lesion: Lesion,
    signal: Image,
    samples: int,
    seed: int,
    progress: Progress | None = None,
) -> Recovery:
    """Draw samples for the slice with the lesion, and measure the lesion in them.

    Samples for the slice without it, with the same draws, tell what the score is without a lesion.

    Arguments:
        fitted: Fitted on the layer.
        place: The place.
        lesion: The lesion.
        signal: What it adds to the slice, (H, W), HU.
        samples: How many samples.
        seed: Decides the draws.
        progress: Called with (stage, done, total).
    """
    x = place.x
    patch = fitted.preset.vae.patch
    padded = pad_to(x, patch)
    tile = _tile((padded.shape[0], padded.shape[1]), patch, lesion.at or (0, 0))
    here = next(iter(tile))
    unit = np.zeros_like(padded)
    unit[: x.shape[0], : x.shape[1]] = signal / np.float32(lesion.contrast)
    near = _near(unit[here])
    disc = unit[here][near]
    with_lesion = padded + unit * np.float32(lesion.contrast)
    drawn = [_draw(fitted, image, tile, samples, seed) for image in (padded, with_lesion)]
    if progress:
        progress("samples", 1, 2)
    absent, present = (score(images[:, *near], disc) for images, _ in drawn)
    reconstructed = score(drawn[1][1][near], disc) - score(drawn[0][1][near], disc)
    refined = None
    observer = Observer(fitted.denoiser, fitted.layer, fitted.embedder)
    if observer.differentiable:
        changes = _changes(place, tile, drawn[1][0][:_REFINED] - with_lesion[here])
        base = (x + signal)[place.crop]
        moves = noise_change(observer, base, place.noise[:_NOISE])
        moved = refine(observer, base, changes, moves, rhos=(RHO,), progress=progress)
        cut = _in_crop(place, here, near)
        baseline = score(x[place.crop][cut], disc)
        refined = _contrast(score((base + moved.at(RHO))[:, *cut], disc) - baseline)
    if progress:
        progress("samples", 2, 2)
    return Recovery(lesion.contrast, float(reconstructed), _contrast(present - absent.mean()), refined)


def _contrast(values: npt.NDArray[np.float64]) -> Contrast:
    low, high = np.quantile(values, (0.05, 0.95))
    return Contrast(float(values.mean()), float(low), float(high), len(values))


def _tile(shape: tuple[int, int], patch: int, at: tuple[int, int]) -> Grid:
    """The one tile whose middle is nearest to a place."""
    corner = [
        min(max(0, round((middle - patch / 2) / STEP) * STEP), (side - patch) // STEP * STEP)
        for middle, side in zip((at[1], at[0]), shape, strict=True)
    ]
    window = grid((patch, patch), patch, min(STEP, patch // 4)).window
    return Grid(shape, patch, ((corner[0], corner[1]),), window)


def _near(signal: Image) -> tuple[slice, slice]:
    """The lesion and a rim of its own width around it, within a tile."""
    rows, columns = (np.flatnonzero((signal > 0.01).any(axis)) for axis in (1, 0))
    rim = max(4, (rows[-1] - rows[0] + 1) // 2)
    return tuple(  # type: ignore[return-value]
        slice(max(0, int(places[0]) - rim), min(side, int(places[-1]) + rim + 1))
        for places, side in zip((rows, columns), signal.shape, strict=True)
    )


def _draw(fitted: FittedLayer, x: Image, tile: Grid, samples: int, seed: int) -> tuple[Image, Image]:
    """Samples (N, p, p) and the autoencoder's reconstruction (p, p) of one tile, HU."""
    here = next(iter(tile))
    patch, clean = cut_tile(x, here), guide_slice(fitted, x)
    guide = None if clean is None else cut_tile(clean, here)
    context = tile_contexts(fitted, x, tile, clean).h
    sampler = Sampler(fitted.vae, fitted.flow, precision=fitted.preset.tile.precision)
    drawn = list(sampler.draw(seed, 0, samples, context, guide))
    vae = fitted.vae
    reconstruction = vae.decode(vae.encode(patch, guide), guide)[0, 0]
    return torch.cat(drawn).cpu().numpy(), reconstruction.cpu().numpy()


def _changes(view: Observation, tile: Grid, changes: Image) -> Image:
    """Changes of a tile as changes of the crop, falling to zero at the tile's border."""
    crop, here = view.crop, next(iter(tile))
    height = max(view.x.shape[0], tile.shape[0])
    width = max(view.x.shape[1], tile.shape[1])
    placed = np.zeros((len(changes), height, width), dtype=np.float32)
    placed[:, *here] = changes * tile.window
    return np.ascontiguousarray(placed[:, *crop])


def _in_crop(view: Observation, here: tuple[slice, slice], near: tuple[slice, slice]) -> tuple[slice, slice]:
    """A part of a tile as a part of the crop."""
    return tuple(  # type: ignore[return-value]
        slice(tile.start + part.start - crop.start, tile.start + part.stop - crop.start)
        for tile, part, crop in zip(here, near, view.crop, strict=True)
    )
