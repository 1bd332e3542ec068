"""Channels: the few weighted views of an image that a channelised observer has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ctinv.adapters.errors import CtinvError
from numpy.typing import NDArray

__all__ = [
    "CHANNELS",
    "channel_bank",
    "difference_of_gaussians",
    "eye_filter",
    "eye_template",
    "gabor",
    "laguerre_gauss",
    "responses",
]

CHANNELS = ("lg", "dog", "gabor")
"""Laguerre-Gauss, difference of Gaussians, Gabor."""

_BANDS = {"dense": (0.005, 1.4, 1.67, 10), "sparse": (0.015, 2.0, 2.0, 3)}
_VIEWING = 500.0  # mm between eye and display
_EYE = (1.3, 0.04)  # exponent, and decay per (cycle per degree)^2: the peak lies at 4 cycles per degree


def _offsets(
    shape: tuple[int, int], centre: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance of every pixel from the centre along rows and columns, (h, 1) and (1, w), pixels."""
    middle = centre or ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    rows = np.arange(shape[0], dtype=np.float64)[:, None] - middle[0]
    columns = np.arange(shape[1], dtype=np.float64)[None, :] - middle[1]
    return np.asarray(rows, np.float64), np.asarray(columns, np.float64)


def laguerre_gauss(
    shape: tuple[int, int], width: float, count: int = 5, centre: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Laguerre-Gauss channels: round, smooth, orthonormal, for round signals at a known place.

    Source: B. Gallas and H. Barrett, "Validating the use of channels to estimate the ideal linear
    observer", Journal of the Optical Society of America A 20, 2003,
    https://doi.org/10.1364/JOSAA.20.001725

    Arguments:
        shape: Height and width of the region.
        width: Width of the Gaussian in pixels: it falls to exp(-pi) at this radius.
        count: How many.
        centre: Row and column of the signal's middle in pixels; the region's middle where None.

    Returns:
        (count, h, w).

    Example:
        >>> bank = laguerre_gauss((65, 65), 14.0).reshape(5, -1)
        >>> bool(np.allclose(bank @ bank.T, np.eye(5), atol=1e-6))
        True
    """
    from scipy.special import eval_laguerre

    rows, columns = _offsets(shape, centre)
    square = 2 * math.pi * (rows**2 + columns**2) / width**2
    envelope = math.sqrt(2) / width * np.exp(-square / 2)
    return np.stack([envelope * eval_laguerre(order, square) for order in range(count)])


def difference_of_gaussians(
    shape: tuple[int, int],
    kind: str = "dense",
    centre: tuple[float, float] | None = None,
    scale: float = 1.0,
) -> NDArray[np.float64]:
    """Difference-of-Gaussian channels: rings in frequency, as wide as those of human vision.

    Channel ``j`` passes ``exp(-(f / Q s_j)^2 / 2) - exp(-(f / s_j)^2 / 2)`` with ``s_j`` rising by a
    constant factor; ten dense or three sparse ones.

    Source: C. Abbey and H. Barrett, "Human- and model-observer performance in ramp-spectrum noise:
    effects of regularization and object variability", Journal of the Optical Society of America A 18,
    2001, https://doi.org/10.1364/JOSAA.18.000473

    Arguments:
        shape: Height and width of the region.
        kind: ``dense`` or ``sparse``.
        centre: Row and column of the signal's middle; the region's middle where None.
        scale: Pixels of the region per pixel of the image; below 1 for layers of lower resolution.

    Returns:
        (10 or 3, h, w).

    Raises:
        CtinvError: An unknown kind.
    """
    if kind not in _BANDS:
        raise CtinvError(f"{kind!r} names no channels; choose one of: {', '.join(_BANDS)}")
    first, step, ratio, count = _BANDS[kind]
    middle = centre or ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    square = rows**2 + columns**2
    place = np.exp(-2j * math.pi * (rows * middle[0] + columns * middle[1]))
    made: list[NDArray[np.float64]] = []
    for number in range(count):
        spread = first * step**number / scale
        band = np.exp(-square / (ratio * spread) ** 2 / 2) - np.exp(-square / spread**2 / 2)
        made.append(np.asarray(np.fft.ifft2(band * place).real, np.float64))
    return np.stack(made)


def gabor(
    shape: tuple[int, int],
    bands: int = 4,
    directions: int = 4,
    phases: tuple[float, ...] = (0.0,),
    centre: tuple[float, float] | None = None,
    scale: float = 1.0,
) -> NDArray[np.float64]:
    """Gabor channels: bands an octave wide below 1/8 cycles per pixel, in several directions.

    Source: M. Eckstein, C. Abbey, F. Bochud, "A practical guide to model observers for visual detection in
    synthetic and natural noisy images", in Handbook of Medical Imaging 1, SPIE 2000, chapter 10.

    Arguments:
        shape: Height and width of the region.
        bands: Octaves.
        directions: Directions over half a turn.
        phases: Phases in radians.
        centre: Row and column of the signal's middle; the region's middle where None.
        scale: Pixels of the region per pixel of the image.

    Returns:
        (bands x directions x phases, h, w).
    """
    rows, columns = _offsets(shape, centre)
    square = rows**2 + columns**2
    made: list[NDArray[np.float64]] = []
    for band in range(bands):
        high = 2.0 ** -(3 + band) / scale
        low, middle = high / 2, 0.75 * high
        spread = 4 * math.log(2) / (math.pi * (high - low))  # full width at half maximum
        envelope = np.exp(-4 * math.log(2) * square / spread**2)
        for direction in range(directions):
            angle = math.pi * direction / directions
            along = columns * math.cos(angle) + rows * math.sin(angle)
            made.extend(envelope * np.cos(2 * math.pi * middle * along + phase) for phase in phases)
    return np.stack(made)


def channel_bank(
    name: str,
    shape: tuple[int, int],
    width: float,
    centre: tuple[float, float] | None = None,
    scale: float = 1.0,
) -> NDArray[np.float64]:
    """The channels of one name, blind to the region's mean, as an eye is.

    Arguments:
        name: ``lg``, ``dog`` or ``gabor``.
        shape: Height and width of the region.
        width: Of the Laguerre-Gauss channels, pixels of the image.
        centre: Row and column of the signal's middle in the region.
        scale: Pixels of the region per pixel of the image.

    Returns:
        (K, h, w); each sums to zero.

    Raises:
        CtinvError: An unknown name.
    """
    if name == "lg":
        bank = laguerre_gauss(shape, width * scale, centre=centre)
    elif name == "dog":
        bank = difference_of_gaussians(shape, centre=centre, scale=scale)
    elif name == "gabor":
        bank = gabor(shape, centre=centre, scale=scale)
    else:
        raise CtinvError(f"{name!r} names no channels; choose one of: {', '.join(CHANNELS)}")
    blind: NDArray[np.float64] = bank - bank.mean((1, 2), keepdims=True)
    return blind


def responses(images: NDArray[Any], bank: NDArray[np.float64]) -> NDArray[np.float64]:
    """What channels (K, h, w) say of images (N, ..., h, w): (N, ..., K)."""
    flat = np.asarray(images, dtype=np.float64).reshape(*images.shape[:-2], -1)
    return np.asarray(flat @ bank.reshape(len(bank), -1).T)


def eye_filter(frequency: NDArray[Any]) -> NDArray[np.float64]:
    """How well an eye at half a metre sees a pattern: ``f^1.3 exp(-0.04 f^2)``, ``f`` in cycles per degree.

    Source: A. Burgess, "Statistically defined backgrounds: performance of a modified nonprewhitening
    observer model", Journal of the Optical Society of America A 11, 1994,
    https://doi.org/10.1364/JOSAA.11.001237

    Arguments:
        frequency: Cycles per mm on the display, any shape.

    Example:
        >>> degrees = np.linspace(0.1, 12, 1191)
        >>> seen = eye_filter(degrees * 180 / (np.pi * 500))
        >>> round(float(degrees[seen.argmax()]), 1)
        4.0
    """
    degrees = np.asarray(frequency, dtype=np.float64) * _VIEWING * math.pi / 180
    return np.asarray(degrees ** _EYE[0] * np.exp(-_EYE[1] * degrees**2))


def eye_template(signal: NDArray[Any], pixel: tuple[float, float] | None) -> NDArray[np.float64]:
    """Template of the non-prewhitening observer for a signal, without its mean.

    Arguments:
        signal: The known difference, (..., h, w).
        pixel: Height and width of a pixel on the display in mm, seen through :func:`eye_filter` twice,
            once by signal and once by image; None for the observer without an eye.

    Returns:
        (..., h, w), so that the score of an image is its sum of products with it.
    """
    plain = np.asarray(signal, dtype=np.float64)
    plain = plain - plain.mean((-2, -1), keepdims=True)
    if pixel is None:
        return plain
    height, width = plain.shape[-2:]
    seen = eye_filter(np.hypot(np.fft.fftfreq(height, pixel[0])[:, None], np.fft.fftfreq(width, pixel[1])))
    return np.asarray(np.fft.ifft2(np.fft.fft2(plain) * seen**2).real)
