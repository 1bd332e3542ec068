"""Statistics and samples of a slice, put together from those of its tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.invariance.data.tiling import Grid

from .moments import BINS, Bins

__all__ = ["Mosaic"]


@dataclass(frozen=True)
class _Part:
    mean: npt.NDArray[np.float64]
    square: npt.NDArray[np.float64]
    kept: Image
    bins: Bins | None


class Mosaic:
    """Mean, standard deviation and quantiles of samples over a slice, from those of its tiles.

    Where tiles overlap, a pixel's mean and variance are the window-weighted means of the tiles', so
    that the standard deviation does not shrink there as it would if samples were averaged, and does
    not grow by what the tiles disagree about: that is the autoencoder's doing, not the layer's. Whole
    sample images keep their variance likewise: deviations from the mean are blended with weights
    whose squares sum to one. Quantiles are those of the mixture of the tiles' laws. The order in which
    tiles come does not matter, bit by bit.

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
        variance = self._blend(lambda part: np.maximum(part.square - np.square(part.mean), 0))
        return np.sqrt(variance / self._weight()).astype(np.float32)

    @property
    def samples(self) -> Image:
        """The kept sample images (K, H, W)."""
        if not self._keep:
            return np.zeros((0, *self._grid.shape), np.float32)
        deviation = self._blend(lambda part: part.kept - part.mean)
        return (self._mean() + deviation / np.sqrt(self._weight(2))).astype(np.float32)

    def quantile(self, share: float) -> Image:
        """The value that this share of a pixel's samples lies below, (H, W).

        Only where all tiles came with histograms; see :class:`ctinv.invariance.sampling.moments.Histogram`
        for how exact it is.
        """
        p, weight = self._grid.patch, self._weight()
        low, high = np.full(self._grid.shape, np.inf), np.full(self._grid.shape, -np.inf)
        tiles: list[tuple[tuple[slice, slice], Bins]] = []
        for (row, column), part in sorted(self._parts.items()):
            if part.bins is None:
                raise ValueError("a tile came without a histogram")
            tile = slice(row, row + p), slice(column, column + p)
            tiles.append((tile, part.bins))
            low[tile] = np.minimum(low[tile], part.bins.low)
            high[tile] = np.maximum(high[tile], part.bins.low + BINS * part.bins.step)
        for _ in range(30):
            middle = (low + high) / 2
            below = np.zeros(self._grid.shape)
            for tile, bins in tiles:
                below[tile] += self._grid.window * bins.share(middle[tile])
            enough = below >= share * weight
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return ((low + high) / 2).astype(np.float32)
