"""The part of a slice in which a layer says of a region what it says in the whole slice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from torch import Tensor

from .sight import Mask, Sight

__all__ = ["Nearby", "nearby"]

_MARGINS = (16, 32, 64)
_STEP = 16  # parts start and end at multiples of this, so that strided layers keep their phase
_SAME = 1e-3  # of how far noise in the region moves the layer
_WORTH = 0.6  # share of a slice above which leaving the rest out is not worth while

_T = TypeVar("_T", np.float32, np.bool_)


@dataclass(frozen=True, eq=False)
class Nearby:
    """A layer that looks at a part of a slice.

    Arguments:
        sight: The layer at that part.
        part: Rows and columns of the extended slice that it holds.
        shape: Height and width of the extended slice.
    """

    sight: Sight
    part: tuple[slice, slice]
    shape: tuple[int, int]

    def cut(self, image: npt.NDArray[_T]) -> npt.NDArray[_T]:
        """The part (..., h, w) of images or regions (..., H, W) of the extended slice."""
        return np.ascontiguousarray(image[(..., *self.part)])

    def put(self, change: Image) -> Image:
        """A change (h, w) of the part as one (H, W) of the extended slice, zero outside."""
        whole = np.zeros(self.shape, dtype=np.float32)
        whole[self.part] = change
        return whole


def nearby(sight: Sight, region: Mask) -> Nearby:
    """Leave out of a slice what a layer does not need to judge changes inside a region.

    Found out by trying: the part is the smallest of a few around the region in which the layer answers
    to noise there as it does in the whole slice, to a thousandth. Where there is none, because the layer
    looks far, is no map of the image or takes images of one size only, it is the whole slice.

    Arguments:
        sight: The layer at the slice.
        region: Where changes will be, bool (H, W) of the extended slice.
    """
    height, width = sight.x.shape
    whole = Nearby(sight, (slice(0, height), slice(0, width)), (height, width))
    if not (sight.observer.whole and region.any()):
        return whole
    noise = sight.noise[0] * region.astype(np.float32)
    wanted: Tensor | None = None
    for margin in _MARGINS:
        part = (_side(np.asarray(region.any(1)), margin), _side(np.asarray(region.any(0)), margin))
        less = Nearby(sight, part, (height, width))
        shape = less.cut(sight.x).shape
        if shape[0] * shape[1] > _WORTH * height * width:
            break
        smaller = replace(
            sight,
            x=less.cut(sight.x),
            noise=less.cut(sight.noise),
            shape=(shape[0], shape[1]),
            stated=None,
        )
        wanted = sight.moved(noise) if wanted is None else wanted
        try:
            answer = smaller.moved(less.cut(noise))
        except CtinvError:  # a network that takes images of one size only
            break
        if _alike(answer, wanted, part, (height, width)):
            return Nearby(smaller, part, (height, width))
    return whole


def _side(occupied: Mask, margin: int) -> slice:
    """The occupied stretch of one axis with a margin, its ends multiples of the step."""
    numbers = np.flatnonzero(occupied)
    first, last = int(numbers[0]) - margin, int(numbers[-1]) + 1 + margin
    return slice(max(0, first // _STEP * _STEP), min(len(occupied), -(-last // _STEP) * _STEP))


def _alike(answer: Tensor, wanted: Tensor, part: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    """Whether a part's map is that of the whole slice there, and the whole slice's is zero elsewhere."""
    if answer.shape[1] != wanted.shape[1]:
        return False
    # A layer without padding loses as much at either end of a part as at those of the slice.
    scales = [2.0 ** round(np.log2(max(wanted.shape[2 + k], 1) / shape[k])) for k in (0, 1)]
    starts = [round(part[k].start * scales[k]) for k in (0, 1)]
    rows, columns = (slice(starts[k], starts[k] + answer.shape[2 + k]) for k in (0, 1))
    rest = wanted.clone()
    inner = rest[:, :, rows, columns]
    if inner.shape != answer.shape:
        return False
    inner -= answer
    return float(rest.norm()) <= _SAME * float(wanted.norm())
