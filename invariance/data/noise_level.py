"""How much noise a slice holds, told from the slice alone, and whether two slices show the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["alike", "noise_texture", "other_units", "same_slice", "soft_noise"]

_SMOOTH = 2.0  # pixels; hides noise, keeps organs
_STRUCTURE = 60.0  # HU; smoothed slices with less contrast than that show too little to compare
_FEWEST = 500  # pixels of soft tissue below which texture cannot be told
_ALIKE = 0.8  # least correlation of two smoothed twins
_ROUNDING = 0.3  # of the noise; two exposures differ by all of it


def soft_noise(hu: NDArray[np.float32]) -> float:
    """Standard deviation of noise in HU, from the finest details of soft tissue.

    The median absolute response of a Laplacian-like mask that is blind to planes. The mask is that of
    J. Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 64(2), 1996,
    https://doi.org/10.1006/cviu.1996.0060; the median makes edges count little.

    Arguments:
        hu: (H, W), HU.
    """
    from scipy import ndimage

    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    image = np.asarray(hu, dtype=np.float32)
    detail = np.abs(ndimage.convolve(image, mask, mode="nearest"))
    smooth = ndimage.gaussian_filter(image, _SMOOTH)
    soft = (smooth > -200.0) & (smooth < 300.0)
    if soft.sum() < 100:
        soft = smooth > -900.0
    if soft.sum() < 100:
        soft = np.ones_like(soft)
    return float(np.median(detail[soft]) / (0.6745 * 6.0))  # 6: the mask's gain on white noise


def noise_texture(hu: NDArray[np.float32]) -> float | None:
    """How fine the noise of soft tissue is: its strength at fine over that at coarse detail.

    Fine and coarse are what Gaussians of 0.5 and 1 pixel, and of 1 and 2 pixels, differ by. Smooth
    kernels give small values, bone and lung kernels large ones; the strength of the noise cancels.

    Arguments:
        hu: (H, W), HU.

    Returns:
        The ratio of median absolute values; None where too little soft tissue is seen.
    """
    from scipy import ndimage

    image = np.asarray(hu, dtype=np.float32)
    smooth = ndimage.gaussian_filter(image, 2.0)
    soft = (smooth > -50.0) & (smooth < 150.0)
    soft = ndimage.binary_erosion(soft, iterations=4)
    if int(soft.sum()) < _FEWEST:
        return None
    half, one, two = (ndimage.gaussian_filter(image, width) for width in (0.5, 1.0, 2.0))
    fine, coarse = (float(np.median(np.abs(band[soft]))) for band in (half - one, one - two))
    return fine / max(coarse, 1e-3)


def same_slice(x: NDArray[np.float32], y: NDArray[np.float32]) -> bool:
    """Whether two slices of one size show the same anatomy, noise aside.

    Arguments:
        x: (H, W), HU.
        y: Likewise.
    """
    return alike(x, y, _ALIKE)


def alike(x: NDArray[np.float32], y: NDArray[np.float32], least: float) -> bool:
    """Whether two slices, smoothed, correlate by at least so much, or show nothing to compare.

    Arguments:
        x: (H, W), HU.
        y: Likewise.
        least: The correlation; at least that of :func:`same_slice` counts.
    """
    from scipy import ndimage

    if x.shape != y.shape:
        return False
    a, b = (ndimage.gaussian_filter(np.asarray(v, np.float32).clip(-1024, 1500), _SMOOTH) for v in (x, y))
    if max(float(a.std()), float(b.std())) < _STRUCTURE:
        return True  # nothing to tell them apart by
    if min(float(a.std()), float(b.std())) < 1.0:
        return False
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) > max(least, _ALIKE)


def other_units(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float] | None:
    """Slope and offset by which one image, its noise included, becomes the other.

    Arguments:
        x: (H, W), any units.
        y: Likewise; expected to be slope * x + offset but for rounding.

    Returns:
        None where they are different images, or equal.
    """
    inside = (x > x.min()) & (x < x.max()) & (y > y.min()) & (y < y.max())  # the ends are clipped or padding
    if int(inside.sum()) < 100:
        return None
    a, b = x[inside].astype(np.float64), y[inside].astype(np.float64)
    if min(a.std(), b.std()) == 0.0:
        return None
    slope, offset = (float(v) for v in np.polyfit(a, b, 1))
    rest = float(np.median(np.abs(b - slope * a - offset))) / 0.6745
    equal = abs(slope - 1.0) < 0.01 and abs(offset) < 2.0
    return None if equal or rest > _ROUNDING * soft_noise(y) else (slope, offset)
