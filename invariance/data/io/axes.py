"""Which axis of an array counts slices, where its file does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

__all__ = ["slices_first"]

_SIDE = 64  # pixels; slices are no smaller
_SAMPLE = 128  # values along each axis that are looked at
_COVERED = 0.15  # share of an end slice that a body covers, at least
_ODD = 0.1  # logarithm of roughness by which the axis across slices differs from those within, at least
_ALIKE = 0.4  # of that, by which those within differ at most


def slices_first(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """An array without axes of length one, its first axis counting slices.

    An axis of length one behind another, as in (slices, 1, H, W), says that slices come first; else
    the values tell, and where they do not, the shape, as slices are square nearly always.

    Arguments:
        values: (H, W), (slices, H, W), or with axes of length one.
        path: For the refusal.

    Raises:
        ImageError: Slices come last, or may do so.
    """
    told = values.ndim > 3 and 1 in values.shape[1:2] + values.shape[-1:]
    if values.ndim > 2 and values.shape[-1] == 1:  # (H, W, 1), (N, H, W, 1)
        values = values[..., 0]
    while values.ndim > 3 and 1 in values.shape[:-2]:  # (N, 1, H, W), (1, 1, D, H, W)
        values = values.squeeze(values.shape[:-2].index(1))
    if values.ndim != 3 or told or values.shape[-1] in (1, 3, 4) or values.dtype.kind not in "iuf":
        return values
    rows, columns, last = values.shape
    axis = _slice_axis(values) if min(values.shape) > 4 else None
    if axis == 2 or (axis is None and rows == columns >= _SIDE and last != rows):
        raise ImageError(
            f"{path} has shape {values.shape}, in which slices seem to come last; give (slices, H, W), by "
            "numpy.moveaxis(volume, -1, 0), or (slices, 1, H, W), by volume[:, None], where these come first"
        )
    return values


def _slice_axis(values: NDArray[Any]) -> int | None:
    """0 or 2 where the values tell that slices are counted along it; None where they do not."""
    steps = tuple(slice(None, None, max(1, side // _SAMPLE)) for side in values.shape)
    coarse = values[steps].astype(np.float32)
    if not np.isfinite(coarse).all():
        return None
    dense = coarse > np.quantile(coarse, (0.02, 0.98)).mean()
    # The first and the last slice show the body; within slices, the body seldom reaches the border.
    covered = [float(np.mean([dense.take(end, axis).mean() for end in (0, -1)])) for axis in range(3)]
    for axis in (0, 2):
        within = max(own for k, own in enumerate(covered) if k != axis)
        if covered[axis] > _COVERED and within < 0.5 * covered[axis]:
            return axis
    if values.shape[0] != values.shape[1] or values.shape[2] == values.shape[1]:
        return None  # the shape speaks for slices first, and what follows is less sure
    # A crop: neighbours within a slice differ alike along rows and columns, those across it otherwise.
    starts = [(side - min(side, _SAMPLE)) // 2 for side in values.shape]
    block = values[tuple(slice(a, a + _SAMPLE) for a in starts)].astype(np.float32)
    rough = np.log([max(float(np.abs(np.diff(block, axis=k)).mean()), 1e-6) for k in range(3)])
    for axis, (one, two) in ((0, (1, 2)), (2, (0, 1))):
        odd = abs(rough[axis] - (rough[one] + rough[two]) / 2)
        if odd > _ODD and abs(rough[one] - rough[two]) < _ALIKE * odd:
            return axis
    return None
