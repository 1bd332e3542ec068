"""What comparing analyses found: cases, rows of a table, and what one layer hides and another shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.infra.records import plain

__all__ = [
    "_SCHEMA",
    "Case",
    "ComparisonResult",
    "CurveValue",
    "OneSided",
    "Place",
    "Row",
    "label_of",
]

_SCHEMA = 1
_SAID = 6  # pairs of layers that the verdict tells one by one


@dataclass(frozen=True)
class CurveValue:
    """A point of an invariance curve: the spread (HU) of samples that keep a noise ratio."""

    rho: float
    value: float


@dataclass(frozen=True)
class Case:
    """One analysis as a comparison reads it: a layer at a slice, with a seed.

    Arguments:
        label: Model and layer, with a part of the model's hash where two models share a name.
        model: The model's name.
        model_hash: SHA-256 of its file.
        layer: The layer.
        slice: What the slice is called.
        image: A hash of its pixels, by which slices are told apart.
        dose: Fraction of the slice's own dose, where a lower one was simulated.
        seed: Seed of the analysis.
        lower: Anatomy that is hidden at least, HU, at the comparison's noise ratio.
        upper: What can be hidden at most, HU: error of the image read back, on held-out slices.
        upper_here: The same error on this slice, noise included.
        noise: Noise that is hidden at least, HU.
        converged: Whether the searches for the lower bounds had ended.
        curve: The invariance curve.
        folder: Where the analysis lies, where it was read from a folder.
    """

    label: str
    model: str
    model_hash: str
    layer: str
    slice: str
    image: str
    dose: float | None = None
    seed: int | None = None
    lower: float | None = None
    upper: float | None = None
    upper_here: float | None = None
    noise: float | None = None
    converged: bool | None = None
    curve: tuple[CurveValue, ...] = ()
    folder: Path | None = None

    @property
    def row(self) -> str:
        """The row of the table that the case belongs to."""
        return label_of(self.label, self.dose)

    @property
    def entry(self) -> dict[str, Any]:
        """What ``ctinv compare --json`` lists of it."""
        keys = (
            "model",
            "layer",
            "slice",
            "dose",
            "seed",
            "lower",
            "upper",
            "upper_here",
            "noise",
            "converged",
        )
        return {key: getattr(self, key) for key in keys}


def label_of(label: str, dose: float | None) -> str:
    """The name of a layer at a dose.

    Example:
        >>> label_of("yang conv7", 0.25), label_of("yang conv7", None)
        ('yang conv7, dose 0.25', 'yang conv7')
    """
    return label if dose is None else f"{label}, dose {dose:g}"


@dataclass(frozen=True)
class Row:
    """One layer over all its slices and seeds.

    Arguments:
        label: Model and layer, and the dose where it was lowered.
        slices: How many slices.
        runs: How many analyses.
        lower: Mean of the anatomy that is hidden at least, HU.
        upper: Mean of what can be hidden at most, HU.
        upper_here: The same on these slices, noise included, HU.
        noise: Mean of the noise that is hidden at least, HU.
        rank: Median place among the rows by ``lower``, 1 for the layer that hides most; its range is
            over slices and seeds.
    """

    label: str
    slices: int
    runs: int
    lower: Figure | None = None
    upper: Figure | None = None
    upper_here: Figure | None = None
    noise: Figure | None = None
    rank: Figure | None = None


@dataclass(frozen=True, eq=False)
class OneSided:
    """Changes that one layer does not see and another does, at one slice.

    Arguments:
        hides: The layer that does not see them.
        sees: The layer that does.
        changes: The changes, (K, H, W), HU: what the first layer hides, less the part that both hide.
        map: Their spread, (H, W), HU.
        size: RMS of that map inside the body, HU.
        in_hides: Their noise ratio in the layer that hides them, median over the changes.
        in_sees: Their noise ratio in the layer that sees them.
        worth: Size from which on they mean something: what any layer hides at this noise ratio, HU.
    """

    hides: str
    sees: str
    changes: Image
    map: Image
    size: float
    in_hides: float
    in_sees: float
    worth: float

    @property
    def found(self) -> bool:
        """Whether there is anything that one hides and the other shows."""
        return self.size > self.worth

    @property
    def sentence(self) -> str:
        """The finding in plain words."""
        if not self.found:
            return (
                f"Nothing of note is hidden from {self.hides} and visible to {self.sees} "
                f"({self.size:.2f} HU; {self.worth:.2f} HU is what every layer hides at this noise ratio)."
            )
        return (
            f"Hidden from {self.hides}, visible to {self.sees}: {self.size:.1f} HU RMS in the body, which "
            f"move {self.hides} by {100 * self.in_hides:.0f} % of what noise does and {self.sees} by "
            f"{100 * self.in_sees:.0f} %."
        )


@dataclass(frozen=True, eq=False)
class Place:
    """One slice seen through all layers.

    Arguments:
        slice: What it is called.
        x: The slice, (H, W), HU.
        spacing: Row and column spacing in mm, where known.
        labels: The layers, in the order of the table.
        maps: Their maps of what is hidden, (L, H, W), HU.
        ratios: Noise ratio, in the layer of each column, of the samples that the layer of each row
            hides, (L, L); not a number where a model was not at hand.
        sizes: HU that the layer of each row hides and that of each column sees, (L, L).
        pairs: The changes behind ``sizes``, one for each ordered pair.
    """

    slice: str
    x: Image
    spacing: tuple[float, float] | None
    labels: tuple[str, ...]
    maps: Image
    ratios: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    pairs: tuple[OneSided, ...] = ()

    def pair(self, hides: str, sees: str) -> OneSided:
        """What one layer hides and another sees.

        Raises:
            KeyError: It was not looked for.
        """
        for one in self.pairs:
            if (one.hides, one.sees) == (hides, sees):
                return one
        raise KeyError(f"{hides} against {sees} was not compared; there are: {', '.join(self.labels)}")


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """Several analyses set against each other.

    Arguments:
        rho: The noise ratio at which all lower bounds are stated; None where no sample was refined.
        cases: The analyses.
        rows: One for each layer (and dose), by falling lower bound.
        places: Slices with their maps, at most a few; with models at hand also what each hides from
            the others.
        notices: What the user should know.
        versions: Of the libraries.
    """

    rho: float | None
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    places: tuple[Place, ...] = ()
    notices: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> list[str]:
        """The findings in plain sentences: of pairs the largest few."""
        return [*_most_and_least(self.rows), *_of_pairs(self.places)]

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        places = [
            {
                "slice": p.slice,
                "labels": list(p.labels),
                "noise_ratio": plain(p.ratios),
                "hidden_from_row_seen_by_column": plain(p.sizes),
            }
            for p in self.places
        ]
        return {
            "schema_version": _SCHEMA,
            "kind": "comparison",
            "units": "HU",
            "rho": self.rho,
            "rows": plain(self.rows),
            "cases": [case.entry for case in self.cases],
            "places": places,
            "verdict": self.verdict,
            "notices": list(self.notices),
            "versions": self.versions,
        }


def _most_and_least(rows: Sequence[Row]) -> list[str]:
    known = [(row.label, row.lower) for row in rows if row.lower is not None]
    if len(known) < 2:
        return []
    (first, most), (last, least) = known[0], known[-1]
    if _overlap(most, least):
        return [
            f"No layer of these stands out: {first} hides {most.value:.1f} HU at least, {last} "
            f"{least.value:.1f} HU, and their intervals overlap."
        ]
    return [f"{first} hides most, {most.value:.1f} HU at least; {last} least, {least.value:.1f} HU."]


def _of_pairs(places: Sequence[Place]) -> list[str]:
    """What one layer hides and another sees, the largest first; the others are counted."""
    several = sum(bool(place.pairs) for place in places) > 1
    told = [
        (pair, f"{place.slice}: {pair.sentence}" if several else pair.sentence)
        for place in places
        for pair in place.pairs
    ]
    told.sort(key=lambda one: (not one[0].found, -one[0].size))
    if len(told) <= _SAID:
        return [sentence for _, sentence in told]
    of_note = [sentence for pair, sentence in told if pair.found]
    said = of_note[:_SAID]
    if more := len(of_note) - len(said):
        said.append(
            f"{more} further pair{'s' * (more > 1)} of note stand{'s' * (more == 1)} in the tables below."
        )
    if nothing := len(told) - len(of_note):
        said.append(
            f"In {nothing} of {len(told)} pairs nothing of note is hidden from one and visible to the other."
        )
    return said


def _overlap(a: Figure, b: Figure) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return max(a.low, b.low) <= min(a.high, b.high)
