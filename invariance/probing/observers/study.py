"""A study of one observer: taught on one half of the cases, judged on the other, again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray

from .scores import Estimate, estimate, resampled

__all__ = [
    "FEWEST",
    "Learned",
    "Study",
    "halves",
    "hotelling_template",
    "judge",
    "learned_share",
    "read_study",
]

FEWEST = 4
"""Cases of each kind below which nothing can be taught and judged apart."""

_RESAMPLES = 400
_DEAD = 1e-10  # share of the largest eigenvalue below which a direction holds nothing but rounding


@dataclass(frozen=True)
class Study:
    """How well an observer tells two alternatives.

    Arguments:
        auc: Area under the ROC curve, with the interval over cases.
        detectability: d' of the scores, likewise.
        reader_error: Standard deviation of the AUC over readers: what teaching on other cases changes.
        readers: Disjoint halves that taught.
        n: Cases of each kind.
        learned: Share of d' squared that an observer keeps on average who learns the noise of so many
            features from so few cases; 1 for one who learns no noise.
        drawn: d' of the resampled cases, (resamples,), about ``detectability.value``. Studies of the same
            cases with the same seed resample alike, so that their differences and ratios can be drawn too.
    """

    auc: Estimate
    detectability: Estimate
    reader_error: float
    readers: int
    n: int
    learned: float = 1.0
    drawn: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0), compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Learned:
    """What a reader has learned.

    Arguments:
        weights: Of the features, (F,).
        features: Of how many features he learned the noise.
    """

    weights: NDArray[np.float64]
    features: int = 0


def learned_share(features: int, cases: int) -> float:
    """Share of d' squared that is left, on average, to an observer who learned the noise from few cases.

    The signal is taken to be known, as it is where both kinds of cases have the same noise.

    Source: I. Reed, J. Mallett, L. Brennan, "Rapid convergence rate in adaptive arrays", IEEE Transactions
    on Aerospace and Electronic Systems 10, 1974, https://doi.org/10.1109/TAES.1974.307893, here for real
    numbers.

    Arguments:
        features: Whose covariance he learned.
        cases: That taught him.

    Example:
        >>> round(learned_share(10, 100), 2), learned_share(0, 100)
        (0.91, 1.0)
    """
    if features <= 1:
        return 1.0
    freedom = cases - 1
    return max(freedom - features + 2, 1) / (freedom + 1)


def hotelling_template(
    first: NDArray[np.float64], second: NDArray[np.float64], floor: float = 0.0
) -> NDArray[np.float64]:
    """The best linear weights (F,) for telling two kinds of cases by their features (n, F).

    ``w = K^+ (mean of second - mean of first)``, ``K`` the mean covariance of both.

    Source: H. Barrett and K. Myers, Foundations of Image Science, Wiley 2004, chapter 13.

    Arguments:
        first: Features of the cases without the signal.
        second: Features of those with it.
        floor: Noise of the observer's own in every feature, as a share of that feature's variance.
    """
    change = second.mean(0) - first.mean(0)
    covariance = (_covariance(first) + _covariance(second)) / 2
    if floor > 0:
        diagonal = np.diag(covariance)
        # A feature that no noise reaches gets the least of the others' floors, so that it is used.
        alive = diagonal[diagonal > 0]
        least = float(alive.min()) if len(alive) else 1.0
        covariance = covariance + floor * np.diag(np.where(diagonal > 0, diagonal, least))
    values, vectors = np.linalg.eigh(covariance)
    if values[-1] <= 0:  # without any noise the change itself is what to look for
        return np.asarray(change)
    used = values > _DEAD * float(values[-1])
    vectors = vectors[:, used]
    return np.asarray(vectors @ ((vectors.T @ change) / values[used]))


def _covariance(features: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.atleast_2d(np.cov(features, rowvar=False))


def judge(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    seed: int = 0,
    readers: int = 10,
    paired: bool = True,
    internal: float = 0.0,
    floor: float = 0.0,
    resamples: int = _RESAMPLES,
) -> Study:
    """Teach and judge a channelised Hotelling observer.

    A reader is taught on a random half of the cases and judged on the other; then the halves change
    places. No case is judged by a reader that has seen it. The interval resamples the cases, with all
    readers as they are; ``reader_error`` says how much the readers differ.

    Arguments:
        first: Features without the signal, (n, F), such as channel responses.
        second: Features with it, (m, F).
        seed: Draws halves and resamples.
        readers: How many, an even number; two share one split.
        paired: Whether case i of both has the same noise: it is then on the same side of every split.
        internal: The observer's own noise in his decisions, as a share of the variance of the scores:
            d' falls by ``sqrt(1 + internal)``.
        floor: Noise of his own in every feature, see :func:`hotelling_template`.
        resamples: How often the cases are resampled.

    Raises:
        CtinvError: Too few cases, or paired ones that do not match.
    """
    a, b = (np.asarray(f, dtype=np.float64).reshape(len(f), -1) for f in (first, second))
    _check(a, b, readers, paired)

    def template(i: NDArray[np.intp], j: NDArray[np.intp]) -> Learned:
        return Learned(hotelling_template(a[i], b[j], floor), a.shape[1])

    return read_study(
        a, b, template, seed=seed, readers=readers, paired=paired, internal=internal, resamples=resamples
    )


def read_study(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    template: Callable[[NDArray[np.intp], NDArray[np.intp]], Learned],
    *,
    seed: int = 0,
    readers: int = 10,
    paired: bool = True,
    internal: float = 0.0,
    resamples: int = _RESAMPLES,
) -> Study:
    """The study of any linear observer; see :func:`judge` for the rest.

    Arguments:
        first: Features without the signal, (n, F).
        second: Features with it, (m, F).
        template: From the numbers of the cases that teach, of both kinds, to what they teach.
        seed: Draws halves and resamples.
        readers: How many.
        paired: Whether case i of both has the same noise.
        internal: The observer's own noise over that of the scores, as variances.
        resamples: How often the cases are resampled.

    Raises:
        CtinvError: Too few cases, or paired ones that do not match.
    """
    _check(first, second, readers, paired)
    draws = rng(seed, Purpose.OBSERVER_CASES)
    weights = [_weights(draws, resamples, len(first))]
    weights.append(weights[0] if paired else _weights(draws, resamples, len(second)))
    separations, shares = np.zeros((readers, 2, resamples + 1)), np.ones(readers)
    for reader in range(readers):
        i, j = halves(seed, reader, (len(first), len(second)), paired=paired)
        lesson = template(np.flatnonzero(i), np.flatnonzero(j))
        shares[reader] = learned_share(lesson.features, min(int(i.sum()), int(j.sum())))
        middle = first[i].mean(0)
        scores = (first[~i] - middle) @ lesson.weights, (second[~j] - middle) @ lesson.weights
        counts = weights[0][:, ~i], weights[1][:, ~j]
        separations[reader] = resampled(*scores, counts, paired=paired, internal=internal)
    mean = separations.mean(0)
    spread = float(separations[:, 0, 0].std(ddof=1)) if readers > 1 else 0.0
    auc = estimate(float(mean[0, 0]), mean[0, 1:])
    # A resample has fewer different cases, hence too small a spread: d' of resamples is too large on average.
    drawn = mean[1, 1:]
    finite = drawn[np.isfinite(drawn)]
    if len(finite) and np.isfinite(mean[1, 0]):
        drawn = drawn - (finite.mean() - mean[1, 0])
    detectability = estimate(float(mean[1, 0]), drawn)
    return Study(auc, detectability, spread, readers, len(first), float(shares.mean()), drawn)


def _check(a: NDArray[Any], b: NDArray[Any], readers: int, paired: bool) -> None:
    if min(len(a), len(b)) < FEWEST:
        raise CtinvError(
            f"{min(len(a), len(b))} cases cannot teach an observer and judge it; give {FEWEST} or more"
        )
    if paired and len(a) != len(b):
        raise CtinvError(f"{len(a)} cases without and {len(b)} with the signal are no pairs; give as many")
    if readers < 1:
        raise CtinvError(f"{readers} readers judge nothing; give 1 or more")


def halves(
    seed: int, reader: int, counts: tuple[int, int], *, paired: bool = True
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cases of each kind teach one reader; the others are judged by him."""
    draws = rng(seed, Purpose.OBSERVER_HALVES, reader // 2)
    first, second = _half(draws, counts[0]), _half(draws, counts[1])
    second = first if paired else second
    return (~first, ~second) if reader % 2 else (first, second)


def _half(draws: np.random.Generator, count: int) -> NDArray[np.bool_]:
    chosen = np.zeros(count, dtype=bool)
    chosen[draws.permutation(count)[: count // 2]] = True
    return chosen


def _weights(draws: np.random.Generator, resamples: int, count: int) -> NDArray[np.float64]:
    """How often each case counts, (1 + resamples, count); first all once, as they are."""
    drawn = draws.multinomial(count, np.full(count, 1 / count), size=resamples)
    return np.concatenate([np.ones((1, count)), drawn])
