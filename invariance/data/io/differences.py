"""Whether an image holds nothing but noise about 0 HU, as the difference of two images does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["noise_alone", "uneven_noise"]

_MIDDLE, _MEAN = 10.0, 20.0  # HU; air that was clipped shifts the mean of a difference
_AIR = (-500.0, 0.01)  # HU, and the share of pixels below that no difference reaches
_LEAST = 1024  # pixels, below which nothing is said
_COARSE = (4.0, 0.35)  # Gaussian, pixels; share of the spread that it leaves of noise, at most
_SKEW = 0.3  # of the range of quantiles by which they may lie unevenly about the median
_BLOCK = 16  # pixels
_UNEVEN = 4.0  # noise of noisy blocks over that of calm ones; within one object it is less
_SPIKE = 3.0  # zeros over ones; where both images were clipped their difference is 0


def noise_alone(hu: NDArray[Any]) -> bool:
    """Whether values spread evenly about 0 HU, without air and without structure.

    Plain water looks so too, unless its noise is uneven, see :func:`uneven_noise`.

    Arguments:
        hu: (H, W), supposed to be HU.
    """
    from scipy import ndimage

    image = np.asarray(hu, dtype=np.float32)
    if image.size < _LEAST or abs(float(image.mean())) > _MEAN:
        return False
    if float((image < _AIR[0]).mean()) > _AIR[1]:
        return False
    low, middle, high = (float(v) for v in np.quantile(image, (0.01, 0.5, 0.99)))
    spread = float(image.std())
    if abs(middle) > _MIDDLE or spread < 1.0 or abs(low + high - 2.0 * middle) > _SKEW * (high - low):
        return False
    return float(ndimage.gaussian_filter(image, _COARSE[0]).std()) < _COARSE[1] * spread


def uneven_noise(hu: NDArray[Any]) -> bool:
    """Whether the noise differs over the image by more than it does within one object.

    Arguments:
        hu: (H, W), an image of which :func:`noise_alone` is true.
    """
    image = np.asarray(hu, dtype=np.float64)
    near = [float((np.rint(image) == value).mean()) for value in (-1, 0, 1)]
    exact = float((image == 0.0).mean())
    if exact > 0.02 and exact > _SPIKE * max(near[0], near[2]):
        return True
    rows, columns = (side // _BLOCK for side in image.shape)
    if min(rows, columns) < 2:
        return False
    blocks = image[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
    calm, noisy = np.quantile(blocks.std(axis=(1, 3)), (0.1, 0.9))
    return bool(noisy > _UNEVEN * max(float(calm), 1e-3))
