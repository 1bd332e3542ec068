"""Where air and water lie among values that may not be HU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FAR_BELOW",
    "all_soft",
    "clipped_at",
    "likely_offset",
    "likely_scale",
    "lost_sign",
    "middle",
    "negated",
    "noisy_air_at_zero",
    "nothing_soft",
]

FAR_BELOW = -1300.0
"""HU; noise and streaks in air seldom reach it."""

_OFFSETS = (1000.0, 1024.0, 8192.0, 32768.0)
_SOFT = (-150.0, 150.0)  # HU; in every slice of a body much lies here
_NEGATED = (600.0, 1150.0)  # HU; where lungs and air lie with the wrong sign
_NEGATED_AIR = 850.0  # HU; air alone lies above, where dense bone alone would not
_TISSUE, _LABELS = 250.0, 16  # HU; organs with contrast medium stay below; labels are fewer
_WINDOWS = (-900.0, -20.0)  # HU; where display windows begin, but for those of lungs
_LOWEST = -1400.0  # HU; noise in air at a low dose


def middle(hu: NDArray[Any]) -> NDArray[Any]:
    """The middle slice of a volume, or the slice itself."""
    image = np.asarray(hu)
    return image if image.ndim == 2 else np.asarray(image[len(image) // 2])


def negated(hu: NDArray[Any]) -> bool:
    """Whether much lies where air and lungs would lie with the wrong sign, and nothing where they do."""
    image = np.asarray(hu)
    turned = float(((image > _NEGATED[0]) & (image < _NEGATED[1])).mean())
    airy = float(((image > _NEGATED_AIR) & (image < _NEGATED[1])).mean())
    beyond, air = float((image >= _NEGATED[1]).mean()), float((image < -_NEGATED[0]).mean())
    return turned > 0.15 and airy > 0.03 and beyond < 0.01 and air < 0.03


def all_soft(hu: NDArray[Any]) -> bool:
    """Whether a crop holds soft tissue alone: all above 0 HU, close together, of many values."""
    image = np.asarray(hu)
    if image.dtype.itemsize == 1 or not float(image.min()) > 0.0:
        return False
    low, half, high = (float(v) for v in np.quantile(image, (0.01, 0.5, 0.99)))
    return half < _TISSUE and high - low < _TISSUE and np.unique(image.ravel()[:4096]).size > _LABELS


def clipped_at(hu: NDArray[Any]) -> float | None:
    """The lowest value, where much has it exactly though air lies lower; else None."""
    image = np.asarray(hu)
    lowest = float(image.min())
    if not _WINDOWS[0] < lowest < _WINDOWS[1]:
        return None
    flat, next_to_it = (float((np.rint(image) == np.rint(lowest) + k).mean()) for k in (0, 1))
    return lowest if flat > 0.1 and flat > 5.0 * next_to_it else None


def lost_sign(values: NDArray[Any]) -> bool:
    """Whether values are those of signed 16-bit HU read as unsigned ones."""
    image = np.asarray(values)
    turned = image >= 32768.0
    if not turned.any() or float(image[turned].min()) < 60_000.0:
        return False
    return float((image < 5000.0).mean()) > 0.05


def noisy_air_at_zero(hu: NDArray[Any]) -> bool:
    """Whether the image lies in something at 0, noise on both sides, and is filled by what water would be."""
    image = np.asarray(hu)
    if abs(_border(image)) > _SOFT[1] or float((image < -400.0).mean()) > 0.001:
        return False
    return float(((image > 850.0) & (image < 1200.0)).mean()) > 0.2


def _border(hu: NDArray[Any]) -> float:
    """The median along the border of the middle slice."""
    image = middle(hu)
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    measured = edges[edges > image.min()]  # the smallest value may be padding
    return float(np.median(measured if measured.size > 0.1 * edges.size else edges))


def likely_scale(hu: NDArray[Any]) -> float | None:
    """The power of ten that brings a border far from -1000 HU there, and the rest near water."""
    image, level = np.asarray(hu), _border(hu)
    for scale in (0.01, 0.1, 10.0):
        if -1050.0 < scale * level < -950.0:
            rest = scale * image[np.abs(scale * image + 1000.0) > 300.0]
            near = float(((rest > _SOFT[0]) & (rest < _SOFT[1])).mean()) if rest.size else 0.0
            flat = float((np.abs(image - level) < 0.05 * abs(level)).mean())
            return scale if near > 0.3 and flat > 0.15 and float(scale * image.max()) < 3500.0 else None
    return None


def likely_offset(values: NDArray[Any]) -> float | None:
    """The usual offset that leaves most of the body near water; None where none does."""
    sample = np.asarray(values, dtype=np.float64).ravel()[:: max(1, values.size // 200_000)]
    best, share = None, 0.05
    for offset in _OFFSETS:
        shifted = sample - offset
        body = shifted > -500.0
        inside = float(((shifted > _SOFT[0]) & (shifted < _SOFT[1])).mean())
        lowest = float(np.quantile(shifted, 0.001))
        if body.any() and inside > share and _LOWEST < lowest < 500.0:
            best, share = offset, inside + 0.02  # the next one must be clearly better
    # Air tells 1000 and 1024 apart: its noise lies about 0 or about 24, what was clipped at 0 aside.
    at_0 = float(((sample > 0.0) & (sample <= 12.0)).mean()) / 12.0
    at_24 = float(((sample > 12.0) & (sample <= 36.0)).mean()) / 24.0
    return 1024.0 if best == 1000.0 and float(sample.min()) <= 24.0 and at_24 > at_0 else best


def nothing_soft(hu: NDArray[Any]) -> bool:
    """Whether hardly anything is soft tissue, of what is not far below air."""
    image = np.asarray(hu)
    rest = image[image >= FAR_BELOW]
    return rest.size == 0 or float(((rest > _SOFT[0]) & (rest < _SOFT[1])).mean()) < 0.02
