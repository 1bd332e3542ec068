"""Which pixels of a slice hold no measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .slices import OUTSIDE_HU

__all__ = ["mark_outside"]

_NO_MEASUREMENT = -1100.0  # HU; a value below that a file declares as padding is never tissue or air
_AIR = -900.0  # HU
_DEEP = -1500.0  # HU; halfway between air and the least deep padding in use, -2000


def mark_outside(
    hu: NDArray[Any],
    padding: NDArray[np.bool_] | None = None,
    source: str = "the image",
    *,
    blurred: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find the pixels that hold no measurement and give them :data:`OUTSIDE_HU`.

    These are the pixels the file declares as padding, where they reach the border of the image or lie
    below -1100 HU (a value that tissue has as well counts inside the body), and those at the smallest
    value of the image if at least two corners hold that value too and it is below -1024 HU. At exactly
    -1024 HU, which clipped air has as well, only those outside the circle that the image contains,
    and only where nearly all of that outside has this value; at exactly 0 HU likewise, where there is air
    within. Where compression was lossy, padding is
    no longer one value: what lies below -1500 HU and reaches the border counts with the ringing
    around it.

    Arguments:
        hu: (H, W), HU.
        padding: Bool (H, W), what the file declares as padding.
        source: The name used in the error.
        blurred: Whether there may be padding whose values lossy compression changed.

    Returns:
        Float32 HU (H, W) and the bool mask of valid pixels.

    Raises:
        ImageError: No pixel is valid.
    """
    out = np.array(hu, dtype=np.float32)
    outside = np.zeros(out.shape, dtype=bool)
    if padding is not None and padding.any():
        outside = _from_border(padding, padding) | (padding & (out < _NO_MEASUREMENT))
    fill = float(out[~outside].min()) if not outside.all() else 0.0
    corners = out[[0, 0, -1, -1], [0, -1, 0, -1]]
    if fill <= OUTSIDE_HU and int((corners == fill).sum()) >= 2:
        filled = out == fill
        if fill == OUTSIDE_HU:
            filled &= _beyond_circle(filled)
        outside |= filled
    outside |= _water_around(out)
    if blurred and (out < _DEEP).any():
        outside |= _from_border(out < _DEEP, out < _NO_MEASUREMENT)
    if outside.all():
        raise ImageError(f"{source} holds no measured pixel: all is padding; give a slice with content")
    out[outside] = OUTSIDE_HU
    return out, ~outside


def _water_around(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What holds exactly 0 HU outside the circle that the image contains, where there is air within."""
    nothing = np.zeros(hu.shape, dtype=bool)
    corners = hu[[0, 0, -1, -1], [0, -1, 0, -1]]
    if corners.any() or float((hu < _AIR).mean()) < 0.01:
        return nothing
    beyond = _beyond_circle(hu == 0.0)
    return _from_border(hu == 0.0, hu == 0.0) if beyond.any() else nothing


def _beyond_circle(filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Outside the circle that the image contains, where nearly all of that is filled; else nothing."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in filled.shape)
    beyond: NDArray[np.bool_] = np.hypot(rows[:, None], columns) > min(filled.shape) / 2
    return beyond & bool(filled[beyond].mean() > 0.95)


def _from_border(seeds: NDArray[np.bool_], through: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is reached through a mask from seeds on the border of the image."""
    from scipy import ndimage

    start = np.zeros_like(seeds)
    start[[0, -1]], start[:, [0, -1]] = seeds[[0, -1]], seeds[:, [0, -1]]
    reached: NDArray[np.bool_] = ndimage.binary_propagation(
        start, structure=np.ones((3, 3), bool), mask=through
    )
    return reached
