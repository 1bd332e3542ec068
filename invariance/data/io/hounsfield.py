"""Whether numbers can be Hounsfield units, told from the numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

__all__ = ["doubt_of", "refuse_other_quantities"]

_SCALED = 16.0  # no CT slice stays within so many HU of water; standardised and attenuation values do
_BYTE = 255.0  # label maps and pictures of 8 bits hold whole numbers up to here, none negative
_FEW, _IGNORED = 64.0, -2.0  # labels are few, and what is to be ignored is marked by -1 or -2
_LEAST_BELOW = 0.1  # share of pixels far below air from which on an offset was taken off twice
_FAR_BELOW = -1300.0  # HU; noise and streaks in air seldom reach it
_OFFSETS = (1000.0, 1024.0, 8192.0, 32768.0)
_SOFT = (-150.0, 150.0)  # HU; in every slice of a body much lies here


def refuse_other_quantities(volume: NDArray[Any], path: str) -> None:
    """Refuse label maps, pictures and scaled values: nothing that is added would make them HU.

    Arguments:
        volume: Everything a file holds, as stored.
        path: For the refusal.

    Raises:
        ImageError: The values are of another kind; the message says of which.
    """
    low, high = float(volume.min()), float(volume.max())
    whole = volume.dtype.kind in "iu" or bool(np.all(volume == np.rint(volume)))
    if whole and (_IGNORED if 0.0 < high <= _FEW else 0.0) <= low and high <= _BYTE:
        raise ImageError(
            f"{path} holds whole numbers from {low:g} to {high:g}: a label map or an 8-bit picture, not HU; "
            "give the CT volume itself, or say how to come to HU by --scale and --offset"
        )
    if not whole and max(abs(low), abs(high)) <= _SCALED:
        kind, mend = _scaling(low, high)
        raise ImageError(
            f"{path} spans {low:g} to {high:g}, {kind}, which is not HU; say how to come to HU by --scale "
            f"and --offset, {mend}"
        )


def _scaling(low: float, high: float) -> tuple[str, str]:
    """What values near 0 seem to be, and the options that undo it."""
    if low >= -0.1 and high <= 0.1:
        return (
            "attenuation per mm or scaled to [0, 1]",
            "with --scale 1000/MU_WATER --offset 1000 the former",
        )
    if low >= -0.1 and high <= 1.1:
        return "scaled to [0, 1]", "with --scale 4096 --offset 1024 where -1024 to 3072 HU became 0 to 1"
    if max(abs(low), abs(high)) <= 1.1:
        return "scaled to [-1, 1]", "with --scale 2048 --offset -1024 where -1024 to 3072 HU became -1 to 1"
    return "scaled or standardised", "as with --scale STD --offset -MEAN of the training data"


def doubt_of(hu: NDArray[Any], path: str, *, stated: bool = False) -> str:
    """Why these may not be HU; empty where nothing speaks against it.

    Arguments:
        hu: The values of one slice or volume, supposed to be HU.
        path: For a refusal.
        stated: The user said how to come to HU, so that a doubt is none of ours.

    Raises:
        ImageError: See :func:`refuse_other_quantities`; not where ``stated``.
    """
    if stated:
        return ""
    refuse_other_quantities(hu, path)
    low = float(hu.min())
    if low >= 0.0:
        near = _likely_offset(hu)
        if near is None:
            return (
                "no value is negative: these are not HU as they stand, and no usual offset makes them so "
                "(MR, projections, another quantity?); --offset 0 takes them as they are"
            )
        return (
            f"no value is negative: these look like HU + {near:g} (a lost offset); "
            f"--offset {near:g} takes it off, --offset 0 takes them as they are"
        )
    if float((hu < _FAR_BELOW).mean()) > _LEAST_BELOW and _nothing_soft(hu):
        return (
            "much lies far below air (-1000 HU), as where an offset was taken off twice; "
            "--offset -1024 puts it back, --offset 0 takes the values as they are"
        )
    return ""


def _likely_offset(values: NDArray[Any]) -> float | None:
    """The usual offset that leaves most of the body near water; None where none does."""
    sample = np.asarray(values, dtype=np.float64).ravel()[:: max(1, values.size // 200_000)]
    best, share = None, 0.05
    for offset in _OFFSETS:
        shifted = sample - offset
        body = shifted > -500.0
        inside = float(((shifted > _SOFT[0]) & (shifted < _SOFT[1])).mean())
        lowest = float(np.quantile(shifted, 0.001))
        if body.any() and inside > share and -1100.0 < lowest < 500.0:
            best, share = offset, inside + 0.02  # the next one must be clearly better
    # Air tells 1000 and 1024 apart: clipped air is 0 where 1024 was added.
    if best == 1000.0 and float(sample.min()) < 24.0 and _air(sample - 1024.0) > _air(sample - 1000.0):
        return 1024.0
    return best


def _air(hu: NDArray[np.float64]) -> float:
    return float(((hu > -1012.0) & (hu < -988.0)).mean())


def _nothing_soft(hu: NDArray[Any]) -> bool:
    """Whether hardly anything is soft tissue, of what is not far below air."""
    image = np.asarray(hu)
    rest = image[image >= _FAR_BELOW]
    return rest.size == 0 or float(((rest > _SOFT[0]) & (rest < _SOFT[1])).mean()) < 0.02
