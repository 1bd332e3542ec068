"""What places keep of the information in x, as means over tasks and doses, with intervals that are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.probing.observers.scores import Estimate, estimate
from ctinv.invariance.probing.observers.study import Study
from ctinv.invariance.probing.tasks.task import Task
from numpy.typing import NDArray

__all__ = ["ALL", "Difference", "Kept", "Share", "compare", "efficiency", "kept", "losses", "share"]

ALL = ("detection", "characterisation")
"""The groups of tasks: those of which one alternative is nothing, and the others."""

_DIGITS = 6


@dataclass(frozen=True)
class Kept:
    """The mean efficiency of one group of tasks at one place and dose.

    Arguments:
        model: The denoiser's name.
        where: ``x``, a layer's name, or ``f(x)``.
        dose: Fraction of the routine dose.
        observer: Its name.
        group: Of :data:`ALL`.
        tasks: Over how many tasks, those that x shows at this dose.
        value: The mean.
        drawn: The same in resampled cases.
    """

    model: str
    where: str
    dose: float
    observer: str
    group: str
    tasks: int
    value: float
    drawn: tuple[float | None, ...] = field(repr=False)


@dataclass(frozen=True)
class Share:
    """What a place keeps of one group of tasks, mean over tasks and doses.

    Arguments:
        model: The denoiser's name.
        where: ``x``, a layer's name, or ``f(x)``.
        observer: Its name.
        group: Of :data:`ALL`.
        value: The mean efficiency.
        low: Lower end of its 95 % interval over cases.
        high: Upper end.
        tasks: Tasks times doses behind it.
    """

    model: str
    where: str
    observer: str
    group: str
    value: float
    low: float
    high: float
    tasks: int


@dataclass(frozen=True)
class Difference:
    """By how much one place keeps more than another.

    Arguments:
        group: Of :data:`ALL`.
        more: Model and place.
        less: Model and place.
        value: Difference of the mean efficiencies.
        low: Lower end of its 95 % interval over cases, which both see alike.
        high: Upper end.
    """

    group: str
    more: tuple[str, str]
    less: tuple[str, str]
    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def efficiency(study: Study, image: Study) -> float | None:
    """(d' here over d' in x) squared; None where x itself shows nothing.

    An observer of many maps learns less from the same cases than one of a single image: both are set to what
    they would know.
    """
    told, own = study.detectability, image.detectability
    if not own.value > 2 * own.error:
        return None
    return (max(told.value, 0.0) / own.value) ** 2 * image.learned / study.learned


def kept(
    studies: Sequence[tuple[Task, Study, Study]], *, model: str, where: str, dose: float, observer: str
) -> Iterator[Kept]:
    """The mean over the tasks of each group, in the cases and in resampled ones.

    Arguments:
        studies: Tasks with the studies here and at ``x``.
        model: The denoiser's name.
        where: ``x``, a layer's name, or ``f(x)``.
        dose: Fraction of the routine dose.
        observer: Its name.
    """
    for group in ALL:
        values, draws = [], []
        for task, here, image in studies:
            value = efficiency(here, image)
            if task.detects == (group == ALL[0]) and value is not None and np.isfinite(value):
                values.append(value)
                draws.append(_drawn(here, image, value))
        if values:
            drawn = np.mean(draws, axis=0)
            told = tuple(round(float(d), _DIGITS) if np.isfinite(d) else None for d in drawn)
            yield Kept(model, where, dose, observer, group, len(values), float(np.mean(values)), told)


def _drawn(here: Study, image: Study, value: float) -> NDArray[np.float64]:
    """Efficiency in resampled cases, about the value in the cases as they are."""
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(image.drawn > 0, image.drawn, np.nan)
        drawn = (np.maximum(here.drawn, 0.0) / own) ** 2 * image.learned / here.learned
    finite = drawn[np.isfinite(drawn)]
    return drawn if not len(finite) else drawn - (finite.mean() - value)


def _over_doses(kept: Sequence[Kept], seed: int) -> tuple[float, NDArray[np.float64]]:
    """Mean over doses, and the same in resampled cases.

    Doses have noise of their own, but are resampled alike: each one's resamples are shuffled, in the same way
    for all places and denoisers.
    """
    draws = []
    for one in kept:
        drawn = np.array([np.nan if d is None else d for d in one.drawn])
        order = rng(seed, Purpose.PROTOCOL_DOSES, round(one.dose * 10**6)).permutation(len(drawn))
        draws.append(drawn[order])
    return float(np.mean([one.value for one in kept])), np.mean(draws, axis=0)


def _at(kept: Sequence[Kept], place: tuple[str, str], observer: str, group: str) -> list[Kept]:
    return [k for k in kept if (k.model, k.where, k.observer, k.group) == (*place, observer, group)]


def share(kept: Sequence[Kept], place: tuple[str, str], observer: str, group: str, seed: int) -> Share | None:
    """The mean at one place; None where x shows none of the tasks.

    Arguments:
        kept: All that was kept.
        place: Model and place.
        observer: Its name.
        group: Of :data:`ALL`.
        seed: That of the protocol.
    """
    mine = _at(kept, place, observer, group)
    if not mine:
        return None
    value, drawn = _over_doses(mine, seed)
    about = estimate(value, drawn)
    return Share(*place, observer, group, value, about.low, about.high, sum(k.tasks for k in mine))


def compare(
    kept: Sequence[Kept],
    first: tuple[str, str],
    second: tuple[str, str],
    observer: str,
    group: str,
    seed: int,
) -> Difference | None:
    """By how much the first place keeps more than the second; None where either has nothing to keep.

    Arguments:
        kept: All that was kept.
        first: Model and place.
        second: Model and place.
        observer: Its name.
        group: Of :data:`ALL`.
        seed: That of the protocol.
    """
    pair = [_at(kept, place, observer, group) for place in (first, second)]
    if not all(pair) or [k.dose for k in pair[0]] != [k.dose for k in pair[1]]:
        return None
    (a, of_a), (b, of_b) = (_over_doses(mine, seed) for mine in pair)
    about: Estimate = estimate(a - b, of_a - of_b)
    return Difference(group, first, second, a - b, about.low, about.high)


def losses(
    kept: Sequence[Kept], layers: Mapping[str, Sequence[str]], observer: str, group: str, seed: int
) -> tuple[list[Difference], list[Difference]]:
    """From each place to the next in every denoiser, and between the outputs of every two denoisers.

    Arguments:
        kept: All that was kept.
        layers: Model to its places, in the order of the network.
        observer: Its name.
        group: Of :data:`ALL`.
        seed: That of the protocol.
    """
    steps = [((m, a), (m, b)) for m, places in layers.items() for a, b in pairwise(places)]
    ends = [
        (a, places_a[-1], b, places_b[-1]) for (a, places_a), (b, places_b) in combinations(layers.items(), 2)
    ]
    inside = [compare(kept, a, b, observer, group, seed) for a, b in steps]
    between = [compare(kept, (a, x), (b, y), observer, group, seed) for a, x, b, y in ends]
    return [d for d in inside if d is not None], [d for d in between if d is not None]
