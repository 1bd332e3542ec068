"""Run a graph of one fixed size on larger images, in overlapping tiles, where that is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from ctinv.adapters.errors import ModelError, UnsupportedModelError

__all__ = ["Tiler"]

Read = Callable[[np.ndarray], list[np.ndarray]]


class Tiler:
    """Covers images with tiles whose inner parts do not see the tile's edge.

    How far an input pixel reaches is probed; where it reaches across the tile, or where tiles
    disagree on what they share, the layer is refused.

    Arguments:
        read: From images (N, C, h, w) of the fixed size to tensors.
        names: What the tensors are called, for messages.
        size: The fixed height and width.
        channels: Channels of an image.
        period: Pixels by which tiles may be shifted: the largest stride inside the network.
    """

    def __init__(
        self, read: Read, names: Sequence[str], size: tuple[int, int], channels: int, period: int
    ) -> None:
        self._read = read
        self._names = names
        self._size = size
        self._channels = channels
        self._period = period
        self._reach, self._ratios = self._probe()

    def _probe(self) -> tuple[int, list[Fraction]]:
        """How many pixels away the furthest output changes, and pixels per output element."""
        rng = np.random.default_rng(0)
        height, width = self._size
        step = self._period
        row, column = (height // 2) // step * step, (width // 2) // step * step
        reach, ratios = 0, []
        for trial in range(4):
            base = rng.random((1, self._channels, height, width), dtype=np.float32)
            moved = base.copy()
            block = (..., slice(row, row + step), slice(column, column + step))
            moved[block] += np.float32((1.0, -1.0, 10.0, -10.0)[trial])
            pairs = list(zip(self._read(base), self._read(moved), strict=True))
            ratios = [self._ratio(name, a.shape) for name, (a, _) in zip(self._names, pairs, strict=True)]
            for name, ratio, (a, b) in zip(self._names, ratios, pairs, strict=True):
                changed = np.argwhere((a != b).any(axis=(0, 1)))
                if not len(changed):
                    continue
                low, high = changed.min(axis=0) * float(ratio), (changed.max(axis=0) + 1) * float(ratio)
                edges = (row - low[0], high[0] - row - step, column - low[1], high[1] - column - step)
                reach = max(reach, math.ceil(max(edges)))
                if low.min() <= 0 or high[0] >= height or high[1] >= width:
                    raise self._refused(f"in {name!r} one pixel reaches across the whole image")
        reach = (reach + step - 1) // step * step
        if min(height, width) < 2 * reach + 2 * step:
            raise self._refused(f"its layers reach {reach} pixels, too far for tiles of this size")
        return reach, ratios

    def _ratio(self, name: str, shape: tuple[int, ...]) -> Fraction:
        if len(shape) == 4 and shape[2] and shape[3]:
            ratios = {Fraction(self._size[0], shape[2]), Fraction(self._size[1], shape[3])}
            if len(ratios) == 1 and (ratio := ratios.pop()) and 1 in (ratio.numerator, ratio.denominator):
                return ratio
        raise self._refused(f"tensor {name!r} of shape {shape} does not follow the image's pixels")

    def _refused(self, why: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"the model takes images of {self._size[0]}x{self._size[1]} pixels only, and larger ones cannot "
            f"be tiled: {why}"
        )

    def _starts(self, length: int, tile: int) -> list[int]:
        step = (tile - 2 * self._reach - self._period) // self._period * self._period
        return [*range(0, length - tile, max(step, self._period)), length - tile]

    def __call__(self, x: np.ndarray) -> list[np.ndarray]:
        """Tensors for images (N, C, H, W) at least as large as a tile, assembled.

        Raises:
            ModelError: The image is smaller than a tile, or not a whole number of strides larger.
            UnsupportedModelError: Tiles disagree where they overlap.
        """
        (height, width), tile = x.shape[-2:], self._size
        if height < tile[0] or width < tile[1]:
            raise ModelError(
                f"the model takes images of {tile[0]}x{tile[1]} pixels or larger ones, not {height}x{width}"
            )
        if (height - tile[0]) % self._period or (width - tile[1]) % self._period:
            raise ModelError(
                f"images must be a multiple of {self._period} pixels larger than {tile[0]}x{tile[1]}"
            )
        whole: list[np.ndarray] = []
        for top in self._starts(height, tile[0]):
            for left in self._starts(width, tile[1]):
                values = self._read(np.ascontiguousarray(x[..., top : top + tile[0], left : left + tile[1]]))
                if not whole:
                    whole = [
                        np.full((*v.shape[:2], int(height / r), int(width / r)), np.nan, dtype=np.float32)
                        for v, r in zip(values, self._ratios, strict=True)
                    ]
                for name, target, value, ratio in zip(self._names, whole, values, self._ratios, strict=True):
                    self._place(name, target, value, ratio, (top, left), (height, width))
        return whole

    def _place(
        self,
        name: str,
        target: np.ndarray,
        value: np.ndarray,
        ratio: Fraction,
        start: tuple[int, int],
        full: tuple[int, int],
    ) -> None:
        cuts: list[slice] = []
        places: list[slice] = []
        for begin, length, tile in zip(start, full, self._size, strict=True):
            low = self._reach if begin > 0 else 0
            high = tile - (self._reach if begin + tile < length else 0)
            cuts.append(slice(int(low / ratio), int(high / ratio)))
            places.append(slice(int((begin + low) / ratio), int((begin + high) / ratio)))
        inner, spot = value[:, :, cuts[0], cuts[1]], target[:, :, places[0], places[1]]
        both = ~np.isnan(spot)
        if both.any():
            scale = float(np.abs(inner).max()) or 1.0
            if float(np.abs(spot[both] - inner[both]).max()) > 1e-3 * scale:
                raise self._refused(f"tiles disagree on {name!r} where they overlap")
        target[:, :, places[0], places[1]] = inner
