"""Rows of a comparison: hidden HU at one noise ratio, with intervals over slices or seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Audit, Figure
from ctinv.invariance.infra.cache import image_digest
from ctinv.invariance.reporting.provenance import Provenance
from ctinv.invariance.reporting.result import AnalysisResult
from scipy.stats import rankdata, t

from .record import Case, Row

__all__ = ["Summary", "common_ratio", "rows_of", "slice_of"]


@dataclass(frozen=True, eq=False)
class Summary:
    """An analysis without its images, of which a comparison of many could not hold all.

    Arguments:
        source: The analysis, or its folder.
        meta: Where it comes from.
        audit: Its figures.
        image: A hash of the slice's pixels.
    """

    source: AnalysisResult | Path
    meta: Provenance
    audit: Audit
    image: str

    @classmethod
    def of(cls, source: AnalysisResult | str | Path) -> Summary:
        """Read an analysis.

        Raises:
            CtinvError: The folder holds none.
        """
        source = source if isinstance(source, AnalysisResult) else Path(source)
        e = source if isinstance(source, AnalysisResult) else AnalysisResult.load(source)
        return cls(source, e.meta, e.audit, image_digest([e.x])[:16])

    def load(self) -> AnalysisResult:
        """The analysis with its images."""
        return AnalysisResult.load(self.source) if isinstance(self.source, Path) else self.source

    @property
    def own_ratio(self) -> float | None:
        """The noise ratio that its samples keep; None where they are not refined."""
        return self.meta.refinement.rho

    @property
    def ratios(self) -> set[float]:
        """All noise ratios at which it says what is hidden."""
        known = {p.rho for p in self.audit.curve.values() if p.rho is not None}
        return known | ({self.own_ratio} if self.own_ratio else set())

    def lower(self, rho: float | None) -> float | None:
        """Anatomy that is hidden at least at a noise ratio, HU; None where it does not say."""
        if rho is None:
            return None
        if self.own_ratio == rho and self.audit.bounds.lower is not None:
            return self.audit.bounds.lower.value
        return next((p.value for p in self.audit.curve.values() if p.rho == rho), None)


def common_ratio(analyses: Sequence[Summary], wanted: float | None) -> float | None:
    """The noise ratio at which all analyses can be compared.

    Arguments:
        analyses: The analyses; those without refined samples take no part.
        wanted: The ratio that the user asks for, if any.

    Returns:
        What was asked for, else the smallest ratio that an analysis was made for and all know; None
        where no sample was refined.

    Raises:
        CtinvError: There is no such ratio.
    """
    refined = [one.ratios for one in analyses if one.ratios]
    if not refined:
        return None
    shared = set.intersection(*refined)
    told = ", ".join(f"{ratio:g}" for ratio in sorted(shared)) or "none"
    if wanted is not None:
        if wanted not in shared:
            raise CtinvError(
                f"not every analysis says what is hidden at noise ratio {wanted:g}; common to all: {told}"
            )
        return wanted
    if not shared:
        raise CtinvError(
            "the analyses have no noise ratio in common; run ctinv analyze again with one --rho for all"
        )
    asked = shared & {one.own_ratio for one in analyses if one.own_ratio}
    return min(asked) if asked else min(shared)


def rows_of(cases: Sequence[Case]) -> tuple[Row, ...]:
    """One row for each layer and dose, by falling lower bound.

    Values of several seeds at one slice are averaged first; the interval is over slices where there
    are several, else over seeds.
    """
    by_row: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_row[case.row].append(case)
    ranks = _ranks(cases)
    rows = [
        Row(
            label,
            len({case.image for case in own}),
            len(own),
            _mean(own, lambda c: c.lower, "Anatomy that is hidden at least."),
            _mean(own, lambda c: c.upper, "What can be hidden at most: on held-out slices."),
            _mean(own, lambda c: c.upper_here, "What can be hidden at most on these slices, noise included."),
            _mean(own, lambda c: c.noise, "Noise and fine texture that are hidden at least."),
            ranks.get(label),
        )
        for label, own in by_row.items()
    ]
    return tuple(sorted(rows, key=lambda row: -1.0 if row.lower is None else row.lower.value, reverse=True))


def _mean(cases: Sequence[Case], value: Callable[[Case], float | None], meaning: str) -> Figure | None:
    """The mean over slices of the means over seeds, with Student's 95 % interval where there are several.

    The interval ends at 0 HU: all these are spreads and errors, which are never negative.
    """
    slices: dict[str, list[float]] = defaultdict(list)
    for case in cases:
        number = value(case)
        if number is not None and np.isfinite(number):
            slices[case.image].append(number)
    if not slices:
        return None
    several = len(slices) > 1
    values = np.array([np.mean(v) for v in slices.values()] if several else next(iter(slices.values())))
    mean = float(values.mean())
    if len(values) < 2:
        return Figure(mean, "HU", 1, meaning=meaning)
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    over = f"95 %, over {len(values)} {'slices' if several else 'seeds'}"
    return Figure(mean, "HU", len(values), max(0.0, mean - half), mean + half, over, meaning)


def _ranks(cases: Sequence[Case]) -> Mapping[str, Figure]:
    """The place of each row by its lower bound, over the slices and seeds at which all rows were seen."""
    rows = list(dict.fromkeys(case.row for case in cases))
    groups: dict[tuple[str, int | None], dict[str, float]] = defaultdict(dict)
    for case in cases:
        if case.lower is not None:
            groups[slice_of(case), case.seed][case.row] = case.lower
    whole = [group for group in groups.values() if len(group) == len(rows)]
    if not whole or len(rows) < 2:
        return {}
    places = np.array([rankdata([-group[row] for row in rows], "min") for group in whole])
    return {
        row: Figure(
            float(np.median(column)),
            "",
            len(column),
            float(column.min()),
            float(column.max()),
            "range over slices and seeds",
            "Place by what is hidden at least; 1 hides most.",
        )
        for row, column in zip(rows, places.T, strict=True)
    }


def slice_of(case: Case) -> str:
    """What tells slices apart; doses of one slice belong together, though their pixels differ."""
    return case.slice.partition(" at dose ")[0] if case.dose is not None else case.image
