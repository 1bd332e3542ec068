"""The record of a fit: data, figures on held-out patches, and times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ctinv.invariance.infra.records import NULL, JsonRecord
from ctinv.invariance.reading.reading import ReadingScores

__all__ = ["Calibration", "FitRecord", "FitScores", "Timings"]


@dataclass(frozen=True)
class Calibration:
    """How well drawn codes and true codes of the same contexts agree.

    p-values are those of uniform ranks, for pairs that are independent; patches of few slices are
    not quite, so that small p-values come somewhat too often.

    Arguments:
        pairs: Pairs of code and context.
        draws: Codes drawn for each context.
        levels: Levels of the highest-density regions.
        coverage: Share of true codes inside the region of each level.
        deviation: Largest difference of coverage from its level, in points (1/100).
        coverage_p: p-value of the levels at which the true codes lie (Kolmogorov-Smirnov).
        sbc_p: Smallest p-value of the ranks along a direction, times the number of directions.
        sbc_failing: Share of directions whose own p-value is below 5 %; 5 % is expected.
        directions: Directions looked at: every number of the code, and random ones.
        tarp_atc: Area between TARP's coverage and its level, above level 1/2: negative where the
            draws are too narrow or beside the truth, positive where too wide, 1/8 at most.
        tarp_p: p-value of TARP's levels (Kolmogorov-Smirnov).
        error_ratio: RMS distance of true codes from the mean draw, over what the draws' spread makes
            it: 1 is right, above 1 the draws are too narrow or off.
        nll: Negative log-likelihood in bits per dimension.
        nll_shuffled: The same with contexts of other pairs.
        nll_unconditional: The same of a density that knows no context; None without one.
        passes: Whether coverage, SBC and TARP together find nothing wrong at the 1 % level; follows.
    """

    pairs: int
    draws: int
    levels: tuple[float, ...]
    coverage: tuple[float, ...]
    deviation: float
    coverage_p: float
    sbc_p: float
    sbc_failing: float
    directions: int
    tarp_atc: float
    tarp_p: float
    error_ratio: float
    nll: float
    nll_shuffled: float
    nll_unconditional: float | None = field(default=None, metadata=NULL)
    passes: bool = field(init=False)

    def __post_init__(self) -> None:
        smallest = min(self.coverage_p, self.sbc_p, self.tarp_p)
        object.__setattr__(self, "passes", 3 * smallest >= 0.01)

    @property
    def chance(self) -> float:
        """What ``deviation`` stays below in 95 of 100 tests of a flow without any error, points.

        Kolmogorov's distribution has 1.36 in place of 1.18; of its curve only the levels are looked at.
        """
        return 118 / math.sqrt(self.pairs)


@dataclass(frozen=True)
class FitScores:
    """Figures of a flow on held-out patches.

    Arguments:
        nll: Negative log-likelihood of the codes, bits per dimension.
        nll_shuffled: The same with the representations of other patches.
        held_out_patches: How many patches it was tested on.
        steps: Optimiser steps after which it did best.
        curve: At each test: steps, training loss since the last one, held-out loss, bits per dimension.
        temperature: Spread of the invariance variable over most patches, before it was set to one.
        settled_on: Patches that the temperature was measured on.
        calibration: Tests of the flow's spread.
        patches: How many patches the flow was fitted on.
        slices: Of how many slices these were.
        held_out_slices: How many slices were held out.
        reading: How far the reading is from the image on them.
    """

    nll: float
    nll_shuffled: float
    held_out_patches: int = 0
    steps: int | None = None
    curve: tuple[tuple[float, ...], ...] | None = None
    temperature: float | None = None
    settled_on: int | None = None
    calibration: Calibration | None = None
    patches: int | None = None
    slices: int | None = None
    held_out_slices: int | None = None
    reading: ReadingScores | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds that each stage took: of the fit, then of an analysis."""

    data: float | None = None
    fit: float | None = None
    sampling: float | None = None
    refinement: float | None = None
    audit: float | None = None


@dataclass(frozen=True, eq=False)
class FitRecord(JsonRecord):
    """What a fit rests on and how well it went; as a mapping it is what ``config.json`` holds of it.

    Arguments:
        seed: Decided everything random.
        data: What it was fitted on, in words.
        vae: Where the autoencoder comes from.
        split: Patients by part, where the data were divided.
        processes: How many shared the work, where several did.
        habit: Numbers of the novelty test, see :class:`ctinv.invariance.fitting.novelty.NoveltyTest`.
        scores: Figures on held-out patches.
        timings: Seconds by stage.
        notices: What the user should know.
        key: Its name in the cache.
    """

    seed: int | None = None
    data: str | None = None
    vae: str | None = None
    split: Mapping[str, tuple[str, ...]] | None = None
    processes: int | None = None
    habit: Mapping[str, Any] | None = None
    scores: FitScores | None = None
    timings: Timings | None = None
    notices: tuple[str, ...] | None = None
    key: str | None = None
