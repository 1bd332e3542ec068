"""How well a denoiser does on held-out slices: error inside the body and noise texture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import body_mask, noise_power
from numpy.typing import NDArray

from .pairs import TrainingSet

__all__ = ["BANDS", "Scores", "score", "uniform_regions"]

BANDS: dict[str, tuple[float, float]] = {"low": (0.03, 0.1), "mid": (0.1, 0.25), "high": (0.25, 0.5)}
"""Bands of radial spatial frequency, in cycles per pixel."""

_SIDE = 32
_TISSUE = (-100.0, 200.0)


@dataclass(frozen=True)
class Scores:
    """What was measured on held-out slices, over all pixels of the body and the whole HU range.

    Arguments:
        slices: Number of slices.
        patients: Number of patients.
        rmse_low: Root mean squared error of the low-dose slices against full dose, HU.
        rmse: The same for the denoised slices.
        reduction: ``1 - rmse / rmse_low``, all pixels of all slices together.
        reduction_mean: The mean over patients of each one's own reduction.
        reduction_worst: The smallest reduction of any patient.
        regions: Number of uniform regions behind the noise power.
        power: Noise power of the denoised slices over that of full dose, by band (:data:`BANDS`), mean
            over slices; 1 is the texture of full dose, 0 is perfectly smooth.
        power_low: The same for the low-dose slices.
        bound: The reduction that is left to one who knows the noise-free slice: nobody can tell the
            target's own noise from what the lower dose added, only how much of each there is at every
            frequency. From both spectra in the uniform regions, where what the target holds counts
            as noise; one half where the added noise is three times the target's throughout.
    """

    slices: int
    patients: int
    rmse_low: float
    rmse: float
    reduction: float
    reduction_mean: float
    reduction_worst: float
    regions: int
    power: dict[str, float]
    power_low: dict[str, float]
    bound: float


def score(denoise: Callable[[Image], Image], pairs: TrainingSet) -> Scores:
    """Score a denoiser.

    Arguments:
        denoise: Maps slices (N, 1, H, W) in HU to the like.
        pairs: Held-out pairs; the first low-dose version of each is used.

    Raises:
        ImageError: No slice shows a body.
    """
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    pixels: dict[str, int] = {}
    power: list[NDArray[np.float64]] = []
    least: list[tuple[float, float]] = []
    regions = 0
    for pair in pairs.pairs:
        body = body_mask(pair.full)
        if not body.any():
            continue
        low = pair.low[0]
        denoised = np.asarray(denoise(low[None, None]), dtype=np.float32)[0, 0]
        before.setdefault(pair.patient, []).append(float(np.square(low - pair.full)[body].sum(dtype=float)))
        after.setdefault(pair.patient, []).append(
            float(np.square(denoised - pair.full)[body].sum(dtype=float))
        )
        pixels[pair.patient] = pixels.get(pair.patient, 0) + int(body.sum())
        uniform = uniform_regions(pair.full)
        regions += len(uniform)
        if uniform:
            bands = [sum(_band_power(image[at]) for at in uniform) for image in (denoised, low, pair.full)]
            power.append(np.stack(bands[:2]) / bands[2])
            least.append(
                _least_error([pair.full[at] for at in uniform], [(low - pair.full)[at] for at in uniform])
            )
    if not pixels:
        raise ImageError("no held-out slice shows a body, so nothing can be scored; give slices of patients")
    count = sum(pixels.values())
    rmse_low = np.sqrt(sum(map(sum, before.values())) / count)
    rmse = np.sqrt(sum(map(sum, after.values())) / count)
    each = [1.0 - np.sqrt(sum(after[key]) / sum(before[key])) for key in pixels]
    ratio = np.mean(power, axis=0) if power else np.full((2, len(BANDS)), np.nan)
    left, added = (sum(values) for values in zip(*least, strict=True)) if least else (np.nan, 1.0)
    return Scores(
        slices=sum(map(len, before.values())),
        patients=len(pixels),
        rmse_low=float(rmse_low),
        rmse=float(rmse),
        reduction=float(1.0 - rmse / rmse_low),
        reduction_mean=float(np.mean(each)),
        reduction_worst=float(np.min(each)),
        regions=regions,
        power=dict(zip(BANDS, map(float, ratio[0]), strict=True)),
        power_low=dict(zip(BANDS, map(float, ratio[1]), strict=True)),
        bound=float(1.0 - np.sqrt(left / added)),
    )


def uniform_regions(hu: Image, limit: int = 6) -> list[tuple[slice, slice]]:
    """The squares of soft tissue, 32 pixels wide, whose smoothed grey value varies least.

    Arguments:
        hu: A slice (H, W), HU.
        limit: Largest number of squares; they do not overlap.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(hu, 3.0)
    regions = []
    for top in range(0, hu.shape[0] - _SIDE + 1, _SIDE // 2):
        for left in range(0, hu.shape[1] - _SIDE + 1, _SIDE // 2):
            tile = smooth[top : top + _SIDE, left : left + _SIDE]
            if tile.min() > _TISSUE[0] and tile.max() < _TISSUE[1]:
                regions.append((float(tile.std()), top, left))
    chosen: list[tuple[int, int]] = []
    for _, top, left in sorted(regions):
        if all(abs(top - t) >= _SIDE or abs(left - c) >= _SIDE for t, c in chosen):
            chosen.append((top, left))
    return [(slice(t, t + _SIDE), slice(c, c + _SIDE)) for t, c in chosen[:limit]]


def _least_error(own: Sequence[Image], added: Sequence[Image]) -> tuple[float, float]:
    """Power in HU^2 that must stay of the added noise, and all of it, both mean over regions."""
    spectra = []
    for regions in (own, added):
        radius, mean = _spectrum(regions)
        ring = (radius * _SIDE).astype(int).ravel()
        mean = mean.ravel()
        spectra.append((np.bincount(ring, mean) / np.bincount(ring))[ring])
    # Of the sum of two noises the best guess at one is its share; its error is their product over their sum.
    error = spectra[0] * spectra[1] / np.maximum(spectra[0] + spectra[1], 1e-12)
    return float(error.mean()), float(spectra[1].mean())


def _band_power(region: Image) -> NDArray[np.float64]:
    radius, spectrum = _spectrum([region])
    means = [spectrum[(radius >= low) & (radius < high)].mean() for low, high in BANDS.values()]
    floored: NDArray[np.float64] = np.maximum(np.array(means), 1e-12)
    return floored


def _spectrum(regions: Sequence[Image]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radial frequency in cycles per pixel and mean noise power in HU^2 of square regions, both (S, S)."""
    power = noise_power(np.stack(regions), (1.0, 1.0), about="surface")
    return np.hypot(power.rows[:, None], power.columns[None, :]), power.nps
