"""Scores of an observer turned into AUC and d', with intervals by resampling the cases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "area_under_curve", "estimate", "resampled", "separation", "to_area", "to_separation"]

_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A figure with what chance does to it.

    Arguments:
        value: The figure.
        error: Its standard error.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    value: float
    error: float
    low: float
    high: float


def estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    """A figure with the interval of its values (B,) in resampled cases."""
    drawn = drawn[np.isfinite(drawn)]  # a resample may leave one kind out where there are few cases
    if len(drawn) < 2 or not math.isfinite(value):
        return Estimate(value, 0.0 if math.isinf(value) else math.nan, value, value)
    low, high = np.quantile(drawn, (_TAIL, 1 - _TAIL))
    return Estimate(value, float(drawn.std(ddof=1)), float(low), float(high))


def wins(
    first: NDArray[np.float64], second: NDArray[np.float64], internal: float = 0.0
) -> NDArray[np.float64]:
    """How likely each score of ``second`` (m,) beats each of ``first`` (n,), (n, m); a tie counts one half.

    Arguments:
        first: Scores without the signal.
        second: Scores with it.
        internal: Standard deviation of the noise that the observer adds to every score by himself.
    """
    gap = second[None, :] - first[:, None]
    if internal <= 0:
        return np.asarray(0.5 * (1.0 + np.sign(gap)))
    from scipy.special import ndtr

    return np.asarray(ndtr(gap / (math.sqrt(2) * internal)))


def area_under_curve(first: Any, second: Any) -> float:
    """Area under the ROC curve of independent scores: the share of pairs that are ordered rightly.

    Example:
        >>> area_under_curve([1, 2, 3], [3, 4])
        0.9166666666666666
    """
    return float(wins(np.asarray(first, np.float64), np.asarray(second, np.float64)).mean())


def resampled(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    weights: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    paired: bool,
    internal: float = 0.0,
) -> NDArray[np.float64]:
    """AUC and d' (2, B) for cases that count as often as the weights say.

    Arguments:
        first: Scores without the signal, (n,).
        second: Scores with it, (m,).
        weights: How often each case counts, (B, n) and (B, m).
        paired: Whether case i of both has the same noise; such a pair is not compared with itself.
        internal: The observer's own noise over that of the scores, both as variances.
    """
    a, b = weights
    spread = math.sqrt((_variance(first) + _variance(second)) / 2)
    table = wins(first, second, math.sqrt(internal) * spread)
    if paired:
        np.fill_diagonal(table, 0.0)
    total = a.sum(1) * b.sum(1) - ((a * b).sum(1) if paired else 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = ((a @ table) * b).sum(1) / total
    return np.stack([area, _separations(first, second, a, b, internal)])


def _variance(values: NDArray[np.float64]) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _separations(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    internal: float,
) -> NDArray[np.float64]:
    """d' for weighted cases; infinite, or 0, where nothing varies."""
    means, variances = [], []
    # A resample may leave out all cases of one kind: it then says nothing (not a number).
    for values, weight in ((first, a), (second, b)):
        centred = values - values.mean()  # the difference of squares stays exact
        count = np.where((count := weight.sum(1)) > 0, count, np.nan)
        mean = weight @ centred / count
        spread = (weight @ centred**2 / count - mean**2) * count / np.maximum(count - 1, 1)
        means.append(mean + values.mean())
        variances.append(np.maximum(spread, 0.0))
    gain, variance = means[1] - means[0], (variances[0] + variances[1]) / 2 * (1 + internal)
    scale = max(float(np.abs(first).max()), float(np.abs(second).max()), 1e-30)
    with np.errstate(invalid="ignore", divide="ignore"):
        separations = gain / np.sqrt(variance)
    still = variance <= (1e-12 * scale) ** 2
    separations[still] = np.where(gain[still] == 0, 0.0, np.copysign(np.inf, gain[still]))
    return np.asarray(separations * _unbias(len(first) + len(second) - 2))


def _unbias(freedom: int) -> float:
    """What a ratio of a mean to a spread is on average too large by (Hedges), taken back."""
    return 1 - 3 / (4 * freedom - 1) if freedom > 1 else 1.0


def separation(first: Any, second: Any) -> float:
    """d' of scores: difference of their means over their pooled standard deviation."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return float(_separations(a, b, np.ones((1, len(a))), np.ones((1, len(b))), 0.0)[0])


def to_separation(area: float) -> float:
    """d' of two normal distributions with this area under the curve.

    Example:
        >>> round(to_separation(to_area(1.5)), 6)
        1.5
    """
    from scipy.special import ndtri

    return float(math.sqrt(2) * ndtri(area))


def to_area(detectability: float) -> float:
    """Area under the curve of two normal distributions d' apart."""
    from scipy.special import ndtr

    return float(ndtr(detectability / math.sqrt(2)))
