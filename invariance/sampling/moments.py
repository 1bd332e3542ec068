"""Statistics of many samples in memory that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image
from torch import Tensor

__all__ = ["BINS", "Bins", "Histogram", "Moments"]

BINS = 128
"""Bins of a pixel's histogram."""
_REACH = 4.0  # how many standard deviations the bins cover on either side
_FIRST = 50  # samples that decide where the bins lie


class Moments:
    """Mean and mean square of samples that come in portions, in double precision.

    Deviations from the first sample are summed, so that nothing cancels.

    Example:
        >>> moments = Moments()
        >>> moments.add(torch.tensor([[1.0], [2.0]]))
        >>> moments.add(torch.tensor([[6.0]]))
        >>> moments.count, moments.mean.item(), round(moments.square.item(), 3)
        (3, 3.0, 13.667)
    """

    def __init__(self) -> None:
        self.count = 0
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None  # origin, deviations, their squares

    def add(self, samples: Tensor) -> None:
        """Take samples (N, ...)."""
        if self._sums is None:
            origin = samples[0].double()
            self._sums = origin, torch.zeros_like(origin), torch.zeros_like(origin)
        origin, first, second = self._sums
        deviation = samples.double() - origin
        first += deviation.sum(0)
        second += deviation.square_().sum(0)
        self.count += len(samples)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Mean of all samples."""
        origin, first, _ = self._known()
        return (origin + first / self.count).cpu().numpy()

    @property
    def square(self) -> npt.NDArray[np.float64]:
        """Mean of the samples' squares."""
        origin, first, second = self._known()
        mean = first / self.count
        return (second / self.count - mean.square() + (origin + mean).square()).cpu().numpy()

    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._sums is None:
            raise ValueError("no samples have come yet")
        return self._sums


@dataclass(frozen=True)
class Bins:
    """Every pixel's cumulated histogram.

    Arguments:
        low: Lower end of the first bin, (H, W).
        step: Width of the bins, (H, W).
        below: How many samples lie below each edge of the bins, (BINS + 1, H, W).
    """

    low: Image
    step: Image
    below: npt.NDArray[np.unsignedinteger]

    def share(self, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Share of the samples below a value, (H, W) to (H, W), linear within a bin."""
        place = np.clip((value - self.low) / self.step, 0, BINS)
        cell = np.minimum(place.astype(np.int64), BINS - 1)
        left = np.take_along_axis(self.below, cell[None], 0)[0].astype(np.float64)
        right = np.take_along_axis(self.below, cell[None] + 1, 0)[0]
        return (left + (place - cell) * (right - left)) / self.below[-1]


class Histogram:
    """Counts of every pixel's values in bins that fit the pixel, for quantiles.

    The first 50 samples decide where the bins lie: 128 of them over eight standard deviations about
    the mean. A quantile read from them is off by one bin at most, a sixteenth of the pixel's
    standard deviation; what lies farther out is counted in the outermost bins.
    """

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._seen = 0
        self._settled: tuple[Tensor, Tensor, Tensor] | None = None  # low, step, counts

    def add(self, samples: Tensor) -> None:
        """Take samples (N, H, W)."""
        if self._settled is not None:
            _count(samples, *self._settled)
            return
        room = _FIRST - self._seen
        self._waiting.append(samples[:room].cpu().clone())
        self._seen += len(self._waiting[-1])
        if self._seen == _FIRST:
            self._settled = self._settle()
            _count(samples[room:], *self._settled)

    def _settle(self) -> tuple[Tensor, Tensor, Tensor]:
        first = torch.cat(self._waiting)
        std, mean = torch.std_mean(first.double(), 0, correction=0)
        # A pixel that never changes still needs bins of some width.
        std = std.clamp_min(1e-6).maximum(1e-6 * mean.abs())
        low, step = mean - _REACH * std, 2 * _REACH * std / BINS
        counts = torch.zeros((BINS, *first.shape[1:]), dtype=torch.int32)
        self._waiting = []
        _count(first, low, step, counts)
        return low, step, counts

    @property
    def bins(self) -> Bins:
        """What has been counted so far."""
        if self._settled is None:
            self._settled = self._settle()
        low, step, counts = self._settled
        below = np.zeros((BINS + 1, *counts.shape[1:]), np.uint32)
        np.cumsum(counts.numpy(), 0, out=below[1:])
        narrow = below[-1].max() < 2**16
        return Bins(low.float().numpy(), step.float().numpy(), below.astype(np.uint16) if narrow else below)


def _count(samples: Tensor, low: Tensor, step: Tensor, counts: Tensor) -> None:
    if len(samples):
        places = ((samples.cpu() - low) / step).floor().clamp(0, BINS - 1).long()
        counts.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))
