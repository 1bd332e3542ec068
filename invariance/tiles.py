"""How a slice is covered by overlapping patches and put together again without seams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Grid", "Mosaic", "grid", "pad_to"]

Image = npt.NDArray[np.float32]
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
    # Trapezoid: flat inside, falling over the overlap, never quite zero.
    distance = np.minimum(np.arange(patch), np.arange(patch)[::-1]) + 0.5
    ramp = np.minimum(1, distance / max(overlap, 1)).astype(np.float32)
    corners = tuple((row, column) for row in rows for column in columns)
    return Grid(shape, patch, corners, np.outer(ramp, ramp).astype(np.float32))


class Mosaic:
    """Streaming mean and standard deviation of samples over a slice, tile by tile.

    Where tiles overlap, a pixel's law is the window-weighted mixture of the tiles' laws, so that
    the standard deviation does not shrink there as it would if samples were averaged. Whole
    sample images keep their variance likewise: deviations from the mean are blended with weights
    whose squares sum to one.

    Arguments:
        grid: The tiles.
        keep: Whole sample images to keep.
    """

    def __init__(self, grid: Grid, keep: int) -> None:
        self._grid = grid
        self._weight = np.zeros(grid.shape)
        self._first = np.zeros(grid.shape)
        self._second = np.zeros(grid.shape)
        self._square = np.zeros(grid.shape)
        self._deviation = np.zeros((keep, *grid.shape))

    def add(self, tile: tuple[slice, slice], samples: Image) -> None:
        """Take all samples (S, patch, patch) of one tile, in HU."""
        self.add_moments(
            tile,
            samples.mean(0, dtype=np.float64),
            np.square(samples, dtype=np.float64).mean(0),
            samples[: len(self._deviation)],
        )

    def add_moments(
        self,
        tile: tuple[slice, slice],
        mean: npt.NDArray[np.float64],
        square: npt.NDArray[np.float64],
        kept: Image,
    ) -> None:
        """Take one tile's mean and mean square (patch, patch) and the samples to keep."""
        window = self._grid.window.astype(np.float64)
        self._weight[tile] += window
        self._first[tile] += window * mean
        self._second[tile] += window * square
        self._square[tile] += window**2
        self._deviation[(slice(None), *tile)] += window * (kept - mean)

    @property
    def mean(self) -> Image:
        """Pixelwise mean (H, W)."""
        return (self._first / self._weight).astype(np.float32)

    @property
    def std(self) -> Image:
        """Pixelwise standard deviation (H, W)."""
        variance = self._second / self._weight - np.square(self._first / self._weight)
        return np.sqrt(np.maximum(variance, 0)).astype(np.float32)

    @property
    def samples(self) -> Image:
        """The kept sample images (K, H, W)."""
        return (self._first / self._weight + self._deviation / np.sqrt(self._square)).astype(np.float32)
