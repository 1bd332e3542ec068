"""Regions that users mark by an ellipse, and what stands out in a region."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.regions import TISSUE_NAMES, TISSUE_RANGES
from ctinv.invariance.refinement.sight import Mask

__all__ = ["contrast_in", "ellipse", "tissues"]

_LEAST = 0.005  # share of a slice below which a tissue is left out
_BODY = -900.0  # HU
_SMOOTH = 1.5  # pixels: noise stays where it is, only what is coarser vanishes


def ellipse(text: str, shape: tuple[int, int]) -> Mask:
    """Read ``COLUMN:ROW:WIDTH:HEIGHT``, in pixels, as a region of a slice.

    Arguments:
        text: Centre, and width and height of the ellipse; without a height it is a circle.
        shape: Height and width of the slice.

    Returns:
        Bool (H, W).

    Raises:
        CtinvError: Something else, or an ellipse outside the slice.

    Example:
        >>> int(ellipse("32:32:20", (64, 64)).sum())
        317
    """
    if re.fullmatch(r"\s*[\d.]+(\s*:\s*[\d.]+){2,3}\s*", text) is None:
        raise CtinvError(
            f"{text!r} is no ellipse; give column:row:width:height in pixels, such as 250:300:20:12"
        )
    numbers = [float(part) for part in text.split(":")]
    column, row, width, height = (*numbers, numbers[2]) if len(numbers) == 3 else numbers
    if not (width > 0 and height > 0):
        raise CtinvError(f"the ellipse {text!r} has no area; give a positive width and height")
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = np.square(2 * (columns - column) / width) + np.square(2 * (rows - row) / height) <= 1
    if not inside.any():
        raise CtinvError(
            f"the ellipse {text!r} holds no pixel of the slice of {shape[1]} x {shape[0]} (columns x rows); "
            "give a centre inside it"
        )
    return np.asarray(inside)


def tissues(x: Image) -> dict[str, Mask]:
    """The tissues of a slice by their HU, smoothed against noise; without the air around the body.

    Arguments:
        x: The slice (H, W), HU.

    Returns:
        Bool (H, W) by name, of those that cover half a per cent of the slice or more.
    """
    from scipy.ndimage import gaussian_filter

    coarse = gaussian_filter(x.astype(np.float64), _SMOOTH)
    masks = {}
    for key, (low, high) in TISSUE_RANGES.items():
        inside = np.asarray((coarse >= max(low, _BODY)) & (coarse < high))
        if inside.mean() >= _LEAST:
            masks[TISSUE_NAMES[key]] = inside
    return masks


def contrast_in(x: Image, region: Mask) -> Image:
    """What stands out in a region: the smoothed slice there, less what its rim would lead to expect.

    Inside, the expectation is the harmonic function that continues the smoothed slice around it, as a
    soap film does a wire. Noise, which is finer than the smoothing, is no part of the contrast.

    Arguments:
        x: The slice (H, W), HU.
        region: Bool (H, W), with pixels outside it.

    Returns:
        (H, W), HU; zero outside the region.

    Raises:
        CtinvError: The region is the whole slice.
    """
    if region.all():
        raise CtinvError(
            "the region is the whole slice, so that nothing around it says what to expect; mark less"
        )
    exact = x.astype(np.float64)
    inside, around = (_smooth_within(exact, part) for part in (region, ~region))
    return np.where(region, inside - _harmonic(around, region), 0.0).astype(np.float32)


def _smooth_within(x: npt.NDArray[np.float64], part: Mask) -> npt.NDArray[np.float64]:
    """A slice smoothed inside a part of it, as if there were nothing else; zero where that is far."""
    from scipy.ndimage import gaussian_filter

    weight = gaussian_filter(part.astype(np.float64), _SMOOTH)
    total = gaussian_filter(np.where(part, x, 0.0), _SMOOTH)
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0.0)


def _harmonic(values: npt.NDArray[np.float64], region: Mask) -> npt.NDArray[np.float64]:
    """Values outside a region continued into it so that each pixel is the mean of its neighbours."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import spsolve

    height, width = region.shape
    number = np.full(region.shape, -1)
    rows, columns = np.nonzero(region)
    number[rows, columns] = np.arange(len(rows))
    known = np.zeros(len(rows))
    degree = np.zeros(len(rows))
    links: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
    for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        r, c = rows + down, columns + right
        there = (r >= 0) & (r < height) & (c >= 0) & (c < width)
        degree += there
        here = np.flatnonzero(there)
        other = number[r[here], c[here]]
        edge = other < 0
        np.add.at(known, here[edge], values[r[here[edge]], c[here[edge]]])
        links.append((here[~edge], other[~edge]))
    own = np.arange(len(rows))
    i = np.concatenate([own, *(a for a, _ in links)])
    j = np.concatenate([own, *(b for _, b in links)])
    v = np.concatenate([degree, *(-np.ones(len(a)) for a, _ in links)])
    filled = values.copy()
    filled[rows, columns] = spsolve(coo_matrix((v, (i, j))).tocsc(), known)
    return filled
