"""Noise as an image holds it: its level measured, its texture simulated in projection space."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from .dose import noise_realisations

__all__ = ["calm_tissue", "fine_part", "noise_level", "noise_like"]

_SPACING = (0.8, 0.8)  # mm, about what a body scan has
_DOSE = 0.25
_LEAST = 1.0  # HU; no scanner is below it, and a ratio to no noise says nothing


def fine_part(image: npt.NDArray[np.floating]) -> Image:
    """What a Gaussian of 1.5 pixels takes away: what is finer than the anatomy of soft tissue, HU."""
    return np.asarray(image - gaussian_filter(image, 1.5), dtype=np.float32)


def calm_tissue(x: Image) -> npt.NDArray[np.bool_]:
    """Where there is soft tissue without edges, (H, W); failing that, body, or everything."""
    smooth = gaussian_filter(x, 2.0)
    tissue = (smooth > -200) & (smooth < 300)
    for mask in (tissue, smooth > -900):
        if mask.sum() >= 64:
            edges = gaussian_gradient_magnitude(x, 3.0)
            return np.asarray(mask & (edges <= np.quantile(edges[mask], 0.4)))
    return np.ones(x.shape, dtype=bool)


def noise_level(x: Image) -> float:
    """Standard deviation of the fine part of a slice (H, W), HU, in calm soft tissue.

    The fine part is what a Gaussian of 1.5 pixels takes away; the spread is taken from the median
    absolute deviation, so that the few edges left do not count.
    """
    return _spread(fine_part(x)[calm_tissue(x)])


def _spread(values: Image) -> float:
    """Standard deviation of normal values, from their median absolute deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def noise_like(
    x: Image, count: int, rng: np.random.Generator, spacing: tuple[float, float] | None = None
) -> Image:
    """Noise realisations with the level that a slice has, in HU.

    Texture and distribution over the body come from :func:`ctinv.invariance.data.noise_realisations`
    on this slice; the level is scaled so that :func:`noise_level` agrees, and is 1 HU at least.

    Arguments:
        x: The slice (H, W), HU.
        count: How many realisations.
        rng: Draws them; the first ones do not depend on ``count``.
        spacing: Row and column spacing in mm; 0.8 where it is not known.

    Returns:
        Noise of zero mean, (count, H, W), HU.

    Raises:
        ImageError: The slice is smaller than 8 x 8, or not finite.
    """
    drawn = noise_realisations(x, spacing or _SPACING, _DOSE, count, rng, input_dose=math.inf)
    noise = np.stack([np.asarray(one - x, dtype=np.float32) for one in drawn])
    calm = calm_tissue(x)
    spread = _spread(fine_part(noise[0])[calm])
    level = max(_spread(fine_part(x)[calm]), _LEAST)
    return np.asarray(noise * np.float32(level / max(spread, 1e-6)), dtype=np.float32)
