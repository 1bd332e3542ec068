"""Whether numbers can be Hounsfield units, told from the numbers alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .differences import noise_alone, uneven_noise
from .levels import (
    FAR_BELOW,
    all_soft,
    clipped_at,
    likely_offset,
    likely_scale,
    lost_sign,
    middle,
    negated,
    noisy_air_at_zero,
    nothing_soft,
)

__all__ = ["doubt_of", "refuse_other_quantities", "remark_on"]

_SCALED = 16.0  # no CT slice stays within so many HU of water; standardised and attenuation values do
_STANDARDISED = 2.0  # standard deviation that standardised values stay below
_BYTE = 255.0  # label maps and pictures of 8 bits hold whole numbers up to here, none negative
_FEW, _IGNORED = 64.0, -2.0  # labels are few, and what is to be ignored is marked by -1 or -2
_LEAST_BELOW = 0.1  # share of pixels far below air from which on an offset was taken off twice


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
    least = _IGNORED if 0.0 < high <= _FEW else 0.0
    if whole and least <= low and high <= _BYTE and not all_soft(volume):
        raise ImageError(
            f"{path} holds whole numbers from {low:g} to {high:g}: a label map or an 8-bit picture, not HU; "
            "give the CT volume itself, or say how to come to HU by --scale and --offset"
        )
    if not whole and max(abs(low), abs(high)) <= _SCALED and not _calm_water(volume):
        kind, mend = _scaling(low, high)
        raise ImageError(
            f"{path} spans {low:g} to {high:g}, {kind}, which is not HU; say how to come to HU by --scale "
            f"and --offset, {mend}"
        )


def _calm_water(volume: NDArray[Any]) -> bool:
    """Whether values so near to 0 are noise of HU: what was standardised spreads by about 1."""
    return float(volume.std()) > _STANDARDISED and noise_alone(middle(volume))


def _scaling(low: float, high: float) -> tuple[str, str]:
    """What values near 0 seem to be, and the options that undo it."""
    if low >= -0.1 and high <= 0.1:
        return (
            "attenuation per mm or scaled to [0, 1]",
            "with --scale 1000/MU_WATER --offset 1000 the former",
        )
    if low >= -0.1 and high <= 1.1:
        return "scaled to [0, 1]", "with --scale 4096 --offset 1024 where -1024 to 3072 HU became 0 to 1"
    if -1.1 <= low <= -0.9 and (high > 1.1 or (low < -1.0 and high < 0.9)):
        return "HU / 1000 or standardised", "with --scale 1000 --offset 0 the former"
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
    if low >= 0.0 and not all_soft(hu):
        near = likely_offset(hu)
        if near is None and lost_sign(hu):
            return (
                "values lie near 0 and near 65536: signed values that were stored without their sign; write "
                "them as int16 (DICOM: PixelRepresentation 1), --offset 0 takes them as they are"
            )
        if near is None:
            return (
                "no value is negative: these are not HU as they stand, and no usual offset makes them so "
                "(MR, projections, another quantity?); --offset 0 takes them as they are"
            )
        return (
            f"no value is negative: these look like HU + {near:g} (a lost offset); "
            f"--offset {near:g} takes it off, --offset 0 takes them as they are"
        )
    if noisy_air_at_zero(hu) and (near := likely_offset(hu)) is not None:
        return (
            f"air seems to lie at 0: these look like HU + {near:g} (a lost offset); "
            f"--offset {near:g} takes it off, --offset 0 takes them as they are"
        )
    if (scale := likely_scale(hu)) is not None:
        return (
            f"air seems to lie at {-1000 / scale:g}: a rescale slope was lost; --scale {scale:g} puts it "
            "back, --offset 0 takes the values as they are"
        )
    if float((hu < FAR_BELOW).mean()) > _LEAST_BELOW and nothing_soft(hu):
        return (
            "much lies far below air (-1000 HU), as where an offset was taken off twice; "
            "--offset -1024 puts it back, --offset 0 takes the values as they are"
        )
    if negated(hu):
        return (
            "air seems to lie at +1000 HU: the values look negated; --scale -1 turns them round, "
            "--offset 0 takes them as they are"
        )
    if noise_alone(one := middle(hu)) and uneven_noise(one):
        return (
            "values spread about 0 HU without structure and unevenly, as in the difference of two images "
            "(a map of noise), which is not CT; give the images themselves, --offset 0 takes them as they are"
        )
    return ""


def remark_on(hu: NDArray[Any]) -> str:
    """What is odd about values that may be HU all the same; empty where nothing is.

    Arguments:
        hu: The values of one slice or volume, supposed to be HU.
    """
    if (lowest := clipped_at(hu)) is not None:
        return f"values are clipped at {lowest:g} HU, as by a display window: what lay below is lost"
    if float(hu.min()) > 0.0:
        return "no value is negative, as in a crop of soft tissue alone, but also in MR or an 8-bit picture"
    if not noise_alone(middle(hu)):
        return ""
    return (
        "there is nothing but noise about 0 HU: plain water looks so, and so does the difference of two "
        "images (a map of noise), which is not CT"
    )
