"""Shapes of lesions, drawn fine and averaged over pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.probing.lesions import EDGE
from numpy.typing import NDArray

__all__ = ["SHAPES", "Shape", "draw"]

_FINE = 5  # sub-pixels per pixel and direction
_SPIKES = 8
_SPIKE = 0.5  # how far a spike leaves the mean radius, as a share of it
_GAP = 2.0  # mm between the two discs of a gap
_SOFT = 1.5  # mm, the edge of a soft lesion
_RATIO = 3.0  # length of a rod over its width
_PERIOD = 2.5  # mm, grain of a texture

_Plane = Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]


@dataclass(frozen=True)
class Shape:
    """How a lesion lies in the plane.

    Arguments:
        value: From rows, columns and size, all in mm, to its height, 1 within.
        edge: Standard deviation of the Gaussian that blurs its edge, mm; 0 where it has none.
        reach: How far from the middle it reaches, as a multiple of its size.
    """

    value: _Plane
    edge: float = EDGE
    reach: float = 0.5


def _disc(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    return (np.hypot(y, x) <= size / 2).astype(np.float64)


def _sphere(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """The chord through a sphere over its diameter: what a slice as thick as the sphere shows."""
    return np.asarray(np.sqrt(np.clip(1 - (y**2 + x**2) / (size / 2) ** 2, 0, None)))


def _gaussian(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    spread = size / (2 * math.sqrt(2 * math.log(2)))  # the size is the full width at half maximum
    return np.asarray(np.exp(-(y**2 + x**2) / (2 * spread**2)))


def _rod(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    long, wide = size / 2, size / 2 / _RATIO
    inside = (y >= -long) & (y < long) & (x >= -wide) & (x < wide)  # half open: its area is right on any grid
    return inside.astype(np.float64)


def _spiculated(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """A disc with spikes, of the same area as the disc without."""
    wave = _SPIKE * np.cos(_SPIKES * np.arctan2(y, x))
    radius = size / 2 * (1 + wave) / math.sqrt(1 + _SPIKE**2 / 2)
    return (np.hypot(y, x) <= radius).astype(np.float64)


def _two(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """Two touching discs of together the same area."""
    side = size / math.sqrt(2)
    return np.asarray(_disc(y, x - side / 2, side) + _disc(y, x + side / 2, side)).clip(0, 1)


def _gap(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """A disc cut in two halves 2 mm apart."""
    return np.asarray(_disc(y, np.maximum(np.abs(x) - _GAP / 2, 0), size) * (np.abs(x) >= _GAP / 2))


def _texture(y: NDArray[np.float64], x: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """A disc whose value waves in both directions, of the same mean."""
    wave = np.cos(2 * math.pi * x / _PERIOD) * np.cos(2 * math.pi * y / _PERIOD)
    return np.asarray(_disc(y, x, size) * (1 + wave))


SHAPES: dict[str, Shape] = {
    "disc": Shape(_disc),
    "sphere": Shape(_sphere),
    "gaussian": Shape(_gaussian, 0.0, 1.3),
    "rod": Shape(_rod),
    "spiculated": Shape(_spiculated, reach=0.75),
    "two": Shape(_two, reach=0.75),
    "gap": Shape(_gap, reach=0.5 + 1.0),
    "soft": Shape(_disc, _SOFT, 0.5),
    "texture": Shape(_texture),
}
"""Lesions by name. The size is the diameter of the disc; ``spiculated`` and ``two`` have the disc's area,
``gap`` is the disc in two halves 2 mm apart, ``soft`` has an edge of 1.5 mm instead of 0.6 mm, ``rod`` is as
long as the size and a third as wide."""


def draw(
    name: str,
    size: float,
    contrast: float,
    shape: tuple[int, int],
    at: tuple[float, float],
    spacing: tuple[float, float],
    *,
    sharp: bool = False,
) -> Image:
    """What a lesion adds to a slice, float32 (H, W), HU.

    Arguments:
        name: A key of :data:`SHAPES`.
        size: In mm.
        contrast: HU.
        shape: Height and width of the slice.
        at: Column and row of its middle, which may lie between pixels.
        spacing: Row and column spacing, mm.
        sharp: Without the blur of its edge, for insertion into projections, which blurs it.

    Raises:
        CtinvError: An unknown shape, or one smaller than two pixels.
    """
    from scipy.ndimage import gaussian_filter

    if name not in SHAPES:
        raise CtinvError(f"{name!r} is no lesion's shape; choose one of: {', '.join(SHAPES)}")
    if not size >= 2 * max(spacing):
        raise CtinvError(
            f"a lesion of {size:g} mm is smaller than two pixels of {max(spacing):.3g} mm; give at least "
            f"{math.ceil(20 * max(spacing)) / 10:g} mm"
        )
    kind = SHAPES[name]
    # A soft lesion is soft in the patient; the edge of the others is the scanner's.
    edge = math.sqrt(kind.edge**2 - EDGE**2) if sharp and kind.edge > EDGE else 0.0 if sharp else kind.edge
    signal = np.zeros(shape, dtype=np.float32)
    spans, axes = [], []
    for length, middle, step in zip(shape, (at[1], at[0]), spacing, strict=True):
        reach = math.ceil((size * kind.reach + _GAP + 4 * edge) / step)
        low, high = max(0, math.floor(middle) - reach), min(length, math.floor(middle) + reach + 2)
        if low >= high:
            return signal
        spans.append(slice(low, high))
        cells = np.arange((high - low) * _FINE, dtype=np.float64)
        axes.append((low + (cells + 0.5) / _FINE - 0.5 - middle) * step)
    fine = np.broadcast_to(kind.value(axes[0][:, None], axes[1][None, :], size), (len(axes[0]), len(axes[1])))
    if edge > 0:
        fine = gaussian_filter(fine, [edge / step * _FINE for step in spacing], mode="constant")
    tall, wide = (len(axis) // _FINE for axis in axes)
    signal[spans[0], spans[1]] = contrast * fine.reshape(tall, _FINE, wide, _FINE).mean((1, 3))
    return signal
