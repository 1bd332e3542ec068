"""Run a network of one fixed size on larger images, in overlapping tiles, where that is exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from .arrays import is_tensor
from .errors import ModelError, UnsupportedModelError

__all__ = ["Tiler", "stride_within"]

Read = Callable[[Any], Sequence[Any]]


def stride_within(length: int, rows: Sequence[int]) -> int:
    """The largest factor by which a network shrinks images inside.

    Arguments:
        length: Rows of the image.
        rows: Rows of what it computes.

    Example:
        >>> stride_within(64, [64, 32, 16, 1])
        4
    """
    strides = [length // own for own in rows if own and length % own == 0]
    return max((stride for stride in strides if stride <= length // 4), default=1)


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu().numpy() if is_tensor(value) else value)


def _blank(like: Any, shape: tuple[int, ...]) -> Any:
    return like.new_zeros(shape) if is_tensor(like) else np.zeros(shape, dtype=np.float32)


class Tiler:
    """Covers images with tiles whose inner parts do not see the tile's edge.

    How far an input pixel reaches is probed; where it reaches across the tile, or where tiles
    disagree on what they share, the layer is refused. Arrays and PyTorch tensors are taken, and
    gradients pass through.

    Arguments:
        read: From images (N, C, h, w) of the fixed size, as an array, to tensors.
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
            pairs = list(zip(map(_numpy, self._read(base)), map(_numpy, self._read(moved)), strict=True))
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

    def __call__(self, x: Any, read: Read | None = None) -> list[Any]:
        """Tensors for images (N, C, H, W) at least as large as a tile, assembled.

        Arguments:
            x: The images, model units.
            read: Reads their tiles, where these are of another kind than the probes.

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
        whole: list[Any] = []
        placed: list[np.ndarray] = []
        for top in self._starts(height, tile[0]):
            for left in self._starts(width, tile[1]):
                part = x[..., top : top + tile[0], left : left + tile[1]]
                values = (read or self._read)(
                    part.contiguous() if is_tensor(part) else np.ascontiguousarray(part)
                )
                if not whole:
                    sizes = [(int(height / ratio), int(width / ratio)) for ratio in self._ratios]
                    whole = [_blank(v, (*v.shape[:2], *size)) for v, size in zip(values, sizes, strict=True)]
                    placed = [np.zeros(size, dtype=bool) for size in sizes]
                for index, value in enumerate(values):
                    cuts, places = self._inner(self._ratios[index], (top, left), (height, width))
                    inner = value[..., cuts[0], cuts[1]]
                    self._agree(index, whole[index][..., places[0], places[1]], inner, placed[index][places])
                    whole[index][..., places[0], places[1]] = inner
                    placed[index][places] = True
        return whole

    def _inner(
        self, ratio: Fraction, start: tuple[int, int], full: tuple[int, int]
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """The part of a tile that does not see its edge, and where it belongs."""
        cuts: list[slice] = []
        places: list[slice] = []
        for begin, length, tile in zip(start, full, self._size, strict=True):
            low = self._reach if begin > 0 else 0
            high = tile - (self._reach if begin + tile < length else 0)
            cuts.append(slice(int(low / ratio), int(high / ratio)))
            places.append(slice(int((begin + low) / ratio), int((begin + high) / ratio)))
        return (cuts[0], cuts[1]), (places[0], places[1])

    def _agree(self, index: int, before: Any, inner: Any, both: np.ndarray) -> None:
        if not both.any():
            return
        old, new = _numpy(before)[..., both], _numpy(inner)[..., both]
        scale = float(np.abs(_numpy(inner)).max()) or 1.0
        if not float(np.abs(old - new).max()) <= 1e-3 * scale:
            raise self._refused(f"tiles disagree on {self._names[index]!r} where they overlap")
