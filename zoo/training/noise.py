"""How much noise a slice holds, so that a quarter of the dose is a quarter of *its* dose."""

from __future__ import annotations

import math

import numpy as np
from ctinv.invariance.data.simulation.dose import REFERENCE_FLUENCE, Kernel, simulate_low_dose
from numpy.typing import NDArray

__all__ = ["own_fluence", "soft_tissue"]

_BANDS = ((0.5, 1.0), (0.7, 1.5), (1.0, 2.0))  # widths of the two Gaussians whose difference is taken, pixels
_LIMITS = (1 / 64, 4.0)  # of the reference fluence
_FEWEST = 500  # pixels below which nothing can be told
_Array = NDArray[np.float32]


def soft_tissue(hu: _Array) -> NDArray[np.bool_]:
    """Pixels well inside soft tissue: smoothed, between -50 and 150 HU, and four pixels from its border.

    Arguments:
        hu: A slice (H, W), HU.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(hu, 2.0)
    inside = (smooth > -50.0) & (smooth < 150.0) & (hu > -250.0) & (hu < 400.0)
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(inside, iterations=4)
    return eroded


def own_fluence(hu: _Array, spacing: tuple[float, float], kernel: Kernel, rng: np.random.Generator) -> float:
    """The fluence at which the simulator's routine dose has the noise that the slice already holds.

    The slice and a simulated routine-dose noise image are compared in soft tissue, by the median
    absolute value in three frequency bands. Anatomy can only add to what the slice shows there, so
    the band with the least counts.

    Arguments:
        hu: The slice (H, W), HU.
        spacing: Row and column spacing in mm.
        kernel: The simulator's kernel.
        rng: Source of the simulated noise.

    Returns:
        Photons, as ``reference_fluence`` of the simulator; its default where the slice shows too
        little soft tissue to tell.
    """
    inside = soft_tissue(hu)
    if int(inside.sum()) < _FEWEST:
        return REFERENCE_FLUENCE
    noise = simulate_low_dose(hu, spacing, 1.0, rng, kernel=kernel, input_dose=math.inf) - hu
    ratios = []
    for narrow, wide in _BANDS:
        own, simulated = (_spread(image, narrow, wide, inside) for image in (hu, noise))
        ratios.append(own / max(simulated, 1e-6))
    share = 1.0 / max(min(ratios), 1e-3) ** 2
    return REFERENCE_FLUENCE * float(np.clip(share, *_LIMITS))


def _spread(image: _Array, narrow: float, wide: float, inside: NDArray[np.bool_]) -> float:
    from scipy import ndimage

    band = ndimage.gaussian_filter(image, narrow) - ndimage.gaussian_filter(image, wide)
    return float(np.median(np.abs(band[inside])))
