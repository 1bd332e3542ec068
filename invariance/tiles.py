"""How a slice is covered by overlapping patches and put together again without seams."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .moments import BINS, Bins

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


@dataclass(frozen=True)
class _Part:
    mean: npt.NDArray[np.float64]
    square: npt.NDArray[np.float64]
    kept: Image
    bins: Bins | None


class Mosaic:
    """Mean, standard deviation and quantiles of samples over a slice, from those of its tiles.

    Where tiles overlap, a pixel's law is the window-weighted mixture of the tiles' laws, so that
    the standard deviation does not shrink there as it would if samples were averaged. Whole
    sample images keep their variance likewise: deviations from the mean are blended with weights
    whose squares sum to one. The order in which tiles come does not matter, bit by bit.

    Arguments:
        grid: The tiles.
        keep: Whole sample images to keep.
    """

    def __init__(self, grid: Grid, keep: int) -> None:
        self._grid, self._keep = grid, keep
        self._parts: dict[tuple[int, int], _Part] = {}

    def add(self, tile: tuple[slice, slice], samples: Image) -> None:
        """Take all samples (S, patch, patch) of one tile, in HU."""
        self.add_moments(
            tile,
            samples.mean(0, dtype=np.float64),
            np.square(samples, dtype=np.float64).mean(0),
            samples[: self._keep],
        )

    def add_moments(
        self,
        tile: tuple[slice, slice],
        mean: npt.NDArray[np.float64],
        square: npt.NDArray[np.float64],
        kept: Image,
        bins: Bins | None = None,
    ) -> None:
        """Take one tile's mean and mean square (patch, patch), the samples to keep, and its histogram."""
        self._parts[tile[0].start, tile[1].start] = _Part(mean, square, kept, bins)

    def _blend(self, number: Callable[[_Part], npt.NDArray[Any]], power: int = 1) -> npt.NDArray[np.float64]:
        """Sum over the tiles of window**power times something of theirs, always in the same order."""
        window = self._grid.window.astype(np.float64) ** power
        total: npt.NDArray[np.float64] | None = None
        for (row, column), part in sorted(self._parts.items()):
            value = number(part)
            if total is None:
                total = np.zeros((*value.shape[:-2], *self._grid.shape))
            p = self._grid.patch
            total[..., row : row + p, column : column + p] += window * value
        if total is None:
            raise ValueError("no tile has come yet")
        return total

    def _weight(self, power: int = 1) -> npt.NDArray[np.float64]:
        return self._blend(lambda part: np.ones_like(part.mean), power)

    def _mean(self) -> npt.NDArray[np.float64]:
        return self._blend(lambda part: part.mean) / self._weight()

    @property
    def mean(self) -> Image:
        """Pixelwise mean (H, W)."""
        return self._mean().astype(np.float32)

    @property
    def std(self) -> Image:
        """Pixelwise standard deviation (H, W)."""
        variance = self._blend(lambda part: part.square) / self._weight() - np.square(self._mean())
        return np.sqrt(np.maximum(variance, 0)).astype(np.float32)

    @property
    def samples(self) -> Image:
        """The kept sample images (K, H, W)."""
        if not self._keep:
            return np.zeros((0, *self._grid.shape), np.float32)
        deviation = self._blend(lambda part: part.kept - part.mean)
        return (self._mean() + deviation / np.sqrt(self._weight(2))).astype(np.float32)

    def quantile(self, share: float) -> Image:
        """The value that this share of a pixel's samples lies below, (H, W).

        Only where all tiles came with histograms; see :class:`ctinv.invariance.moments.Histogram`
        for how exact it is.
        """
        p, weight = self._grid.patch, self._weight()
        low, high = np.full(self._grid.shape, np.inf), np.full(self._grid.shape, -np.inf)
        found: list[tuple[tuple[slice, slice], Bins]] = []
        for (row, column), part in sorted(self._parts.items()):
            if part.bins is None:
                raise ValueError("a tile came without a histogram")
            tile = slice(row, row + p), slice(column, column + p)
            found.append((tile, part.bins))
            low[tile] = np.minimum(low[tile], part.bins.low)
            high[tile] = np.maximum(high[tile], part.bins.low + BINS * part.bins.step)
        for _ in range(30):
            middle = (low + high) / 2
            below = np.zeros(self._grid.shape)
            for tile, bins in found:
                below[tile] += self._grid.window * bins.share(middle[tile])
            enough = below >= share * weight
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return ((low + high) / 2).astype(np.float32)
