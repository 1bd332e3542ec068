"""How a slice is covered by overlapping patches and put together again without seams."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError

__all__ = ["Grid", "as_slice", "grid", "pad_to"]

STEP = 8
"""Tiles start at multiples of this, so that strided layers' maps can be cut at whole pixels."""


@dataclass(frozen=True)
class Grid:
    """Tiles of one slice.

    Arguments:
        shape: Height and width of the (padded) slice.
        patch: Side of a tile.
        corners: Top-left corner (row, column) of each tile.
        window: Blending weight of a tile's pixels, (patch, patch), positive.
    """

    shape: tuple[int, int]
    patch: int
    corners: tuple[tuple[int, int], ...]
    window: Image

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        for row, column in self.corners:
            yield slice(row, row + self.patch), slice(column, column + self.patch)

    def __len__(self) -> int:
        return len(self.corners)


def as_slice(image: Any) -> Image:
    """One slice (H, W) in HU, from an array or a :class:`ctinv.invariance.data.CTSlice`.

    Raises:
        ImageError: It is not two-dimensional, smaller than 8 pixels, or not finite.
    """
    x = np.ascontiguousarray(np.asarray(getattr(image, "hu", image), dtype=np.float32))
    if x.ndim != 2 or min(x.shape) < 8:
        raise ImageError(f"the image has shape {x.shape}; one slice (H, W) of 8 pixels or more is needed")
    if not np.isfinite(x).all():
        raise ImageError("the image holds values that are not finite; replace them, for example by -1024 HU")
    return x


def pad_to(image: Image, patch: int) -> Image:
    """Extend an image (H, W) on its lower and right side so that tiles fit: by its mirror image."""
    missing = [max(patch, -(-side // STEP) * STEP) - side for side in image.shape]
    if not any(missing):
        return image
    mode = "reflect" if all(m < s for m, s in zip(missing, image.shape, strict=True)) else "symmetric"
    return np.pad(image, [(0, m) for m in missing], mode=mode)  # type: ignore[call-overload,no-any-return]


def _starts(side: int, patch: int, overlap: int) -> list[int]:
    steps = -(-(side - overlap) // (patch - overlap))
    return sorted({round(k * (side - patch) / max(1, steps - 1) / STEP) * STEP for k in range(steps)})


def grid(shape: tuple[int, int], patch: int, overlap: int) -> Grid:
    """Cover a slice with tiles.

    Arguments:
        shape: Height and width, at least ``patch`` each and multiples of 8 (see :func:`pad_to`).
        patch: Side of a tile.
        overlap: Pixels that neighbours share at least, where there is more than one tile.

    Example:
        >>> len(grid((512, 512), 64, 8)), grid((64, 64), 64, 8).corners
        (81, ((0, 0),))
    """
    rows, columns = (_starts(side, patch, overlap) for side in shape)
    corners = tuple((row, column) for row in rows for column in columns)
    window = np.outer(_ramp(rows, patch, overlap), _ramp(columns, patch, overlap))
    return Grid(shape, patch, corners, window.astype(np.float32))


def _ramp(starts: Sequence[int], patch: int, overlap: int) -> npt.NDArray[np.float64]:
    """Weight along one axis: 1 inside, a raised cosine where all neighbours overlap.

    A tile neither begins nor ends abruptly, or its borders would show in the standard deviation.
    """
    shared = min((a + patch - b for a, b in itertools.pairwise(starts)), default=overlap)
    distance = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    return np.square(np.sin(np.pi / 2 * np.minimum(1, distance / max(min(shared, patch // 2), 1))))
