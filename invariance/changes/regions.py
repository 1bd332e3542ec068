"""Regions that users mark: ellipses and mask files, and what stands out in them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.refinement.sight import Mask

__all__ = ["contrast_in", "ellipse", "read_mask"]

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


def read_mask(path: str | Path, shape: tuple[int, int]) -> Mask:
    """Read a region from a file: what is not 0 is inside.

    Arguments:
        path: A NumPy array (``.npy``) or a grey picture (PNG, TIFF, BMP), as large as the slice.
        shape: Height and width of the slice.

    Returns:
        Bool (H, W).

    Raises:
        ImageError: It cannot be read, has another shape, or is empty.
    """
    from PIL import Image as Picture

    path = Path(path)
    try:
        if path.suffix.lower() == ".npy":
            values = np.load(path, allow_pickle=False)
        else:
            with Picture.open(path) as opened:
                values = np.asarray(opened.convert("F") if opened.mode not in ("1", "L", "I") else opened)
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path} is no mask that can be read ({error}); give an .npy array or a grey PNG"
        ) from error
    if values.shape != shape:
        raise ImageError(
            f"the mask {path} is {values.shape}, the slice {shape}; give a mask of the slice's size"
        )
    inside = values != 0
    if not inside.any():
        raise ImageError(f"the mask {path} is empty; mark the region with values that are not 0")
    return np.asarray(inside)


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
