"""The record of an audit: figures in named groups, and the sentences that sum them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ctinv.invariance.infra.records import JsonRecord, read

__all__ = [
    "Audit",
    "BeforeAndAfter",
    "Bounds",
    "ControlsFigure",
    "CurvePoint",
    "Embedding",
    "Figure",
    "Fineness",
    "FlowFit",
    "ImageNovelty",
    "Leakage",
    "LowerBound",
    "Maps",
    "Regions",
    "Spread",
    "Strangeness",
    "TissuePart",
    "Tissues",
    "figure",
]


@dataclass(frozen=True)
class Figure:
    """One number that an audit or a probe states.

    Arguments:
        value: The number; not-a-number where it could not be computed.
        unit: For example HU; empty for a ratio.
        n: On how many draws or images it rests.
        low: Lower end of an interval around the value, in the same unit.
        high: Upper end of it.
        interval: What the interval is, for example "90 %".
        meaning: One sentence for the reader.
        title: What to call it, where its place in the audit does not say.
    """

    value: float
    unit: str | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    meaning: str | None = None
    title: str | None = None


def figure(values: Any, unit: str, meaning: str, n: int | None = None, title: str | None = None) -> Figure:
    """The median of some values, with their 90 % interval where there are several.

    Arguments:
        values: One value or several.
        unit: For example HU; empty for a ratio.
        meaning: One sentence for the reader.
        n: On how many draws a single value rests.
        title: What to call it, where its place in the audit does not say.

    Example:
        >>> figure([1.0, 2.0, 3.0], "HU", "Three.").value
        2.0
    """
    values = np.atleast_1d(np.asarray(values, dtype=float))
    low = high = None
    if len(values) > 1:
        low, high = (float(end) for end in np.quantile(values, (0.05, 0.95)))
    return Figure(
        float(np.median(values)),
        unit,
        n or len(values),
        low,
        high,
        None if low is None else "90 %",
        meaning,
        title,
    )


@dataclass(frozen=True, kw_only=True)
class Spread(Figure):
    """RMS of the map inside the body.

    Arguments:
        found: Whether there is a map to read.
        rho: Noise ratio of the samples; None where they are not refined.
    """

    found: bool = True
    rho: float | None = field(default=None, metadata={"null": True})


@dataclass(frozen=True)
class Maps:
    """Spreads inside the body: of the map, of the image's noise, of the flow's own map."""

    std: Spread | None = None
    noise: Figure | None = None
    std_flow: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class LowerBound(Figure):
    """Spread of changes that the layer was shown not to see.

    Arguments:
        growth: By which share it grew when the steps of the search were doubled for the last time.
        steps: Steps of the search.
        converged: Whether the search had ended.
    """

    growth: float
    steps: int
    converged: bool


@dataclass(frozen=True)
class Bounds:
    """What the layer hides of the image, from below and from above, HU inside the body.

    Arguments:
        lower: Spread of refined samples: anatomy that is hidden.
        noise: Spread of refined noise realisations: noise and fine texture that are hidden.
        upper: Error of the image read back from the layer, on slices held out from the fit, together
            with ``reread``: on average over images like those, nothing wider can be hidden.
        upper_here: The same on this image.
        reread: By how much refined changes move what is read back. The layer's output is asked to be
            the same to the noise ratio only, so that the reading may be off by this much more.
        decoded: That error as the autoencoder shows it, without noise: no map of the flow may be wider.
        decoded_held_out: The same on patches held out from the fit.
        converged: Whether the search for both lower bounds had ended; None where there was none.
    """

    lower: LowerBound | None = None
    noise: LowerBound | None = None
    upper: Figure | None = None
    upper_here: Figure | None = None
    reread: Figure | None = None
    decoded: Figure | None = None
    decoded_held_out: Figure | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class Leakage:
    """Leakage of the refined samples, and of the flow's from ``D(E(x))`` and from ``x``."""

    refined: Figure | None = None
    flow_from_reconstruction: Figure | None = None
    flow: Figure | None = None


@dataclass(frozen=True)
class BeforeAndAfter:
    """One figure of the refined samples and of the flow's own."""

    refined: Figure | None = None
    flow: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class ControlsFigure(Figure):
    """How many controls passed.

    Arguments:
        failed: Names of those that did not.
        figures: The numbers behind each.
    """

    failed: tuple[str, ...]
    figures: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Embedding:
    """How near ``D(E(x))`` is to ``x``."""

    rmse: Figure | None = None
    ssim: Figure | None = None
    cut_off: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class Strangeness(Figure):
    """How far the image lies from the fitting data.

    Arguments:
        limit: Up to which value it is usual.
        familiar: Whether the image is like the fitting data.
    """

    limit: float
    familiar: bool


@dataclass(frozen=True)
class ImageNovelty:
    """Whether the image is like the fitting data, where these are known."""

    strangeness: Strangeness | None = None


@dataclass(frozen=True)
class FlowFit:
    """How well the flow knows the codes of held-out patches."""

    nll: Figure | None = None
    nll_shuffled: Figure | None = None
    nll_unconditional: Figure | None = None
    coverage: Figure | None = None
    error_ratio: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class TissuePart(Figure):
    """A tissue's share of the map's variance, %.

    Arguments:
        std: Root of the mean variance there, HU.
        area: Share of the image that the tissue covers.
    """

    std: float
    area: float


@dataclass(frozen=True, kw_only=True)
class Fineness(Figure):
    """Frequency below which half of the changes' energy lies.

    Arguments:
        noise: The same of the noise.
    """

    noise: float


@dataclass(frozen=True)
class Regions:
    """Where the map's variance lies: by tissue, flat against structured, and how fine it is."""

    air: TissuePart | None = None
    lung: TissuePart | None = None
    fat: TissuePart | None = None
    soft: TissuePart | None = None
    contrast: TissuePart | None = None
    bone: TissuePart | None = None
    flat: Figure | None = None
    frequency: Fineness | None = None


@dataclass(frozen=True)
class Tissues:
    """One figure for each tissue that the image holds."""

    air: Figure | None = None
    lung: Figure | None = None
    fat: Figure | None = None
    soft: Figure | None = None
    contrast: Figure | None = None
    bone: Figure | None = None


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Figure):
    """Spread of samples that are refined to one noise ratio.

    Arguments:
        rho: The noise ratio asked for.
        reached: The one reached, median over samples.
        fine: Share of the changes' energy above 0.25 cycles/pixel.
    """

    rho: float | None = None
    reached: float | None = None
    fine: float | None = None


@dataclass(frozen=True, eq=False)
class Audit(JsonRecord):
    """How far an explanation's images can be trusted.

    As a mapping it is what ``result.json`` holds under ``audit``. A further group is one more field
    here: a frozen dataclass whose fields are figures.

    Arguments:
        map: Spreads inside the body.
        bounds: What the layer hides, from below and from above.
        leakage: How much of the samples' changes the layer sees.
        noise_ratio: Change of the layer by the samples, over the change by noise.
        controls: Cases whose answer is known.
        output: Change of ``f(x)`` by the samples.
        embedding: What the autoencoder loses.
        image: Whether the image is like the fitting data.
        flow: How well the flow was fitted.
        where: Where the map's variance lies.
        leakage_in: Leakage by tissue.
        curve: Spread at each noise ratio, by the ratio as text.
        verdict: Sentences that sum the audit up.
    """

    map: Maps = field(default_factory=Maps)
    bounds: Bounds = field(default_factory=Bounds)
    leakage: Leakage = field(default_factory=Leakage)
    noise_ratio: BeforeAndAfter = field(default_factory=BeforeAndAfter)
    controls: ControlsFigure | None = None
    output: BeforeAndAfter = field(default_factory=BeforeAndAfter)
    embedding: Embedding = field(default_factory=Embedding)
    image: ImageNovelty = field(default_factory=ImageNovelty)
    flow: FlowFit = field(default_factory=FlowFit)
    where: Regions = field(default_factory=Regions)
    leakage_in: Tissues = field(default_factory=Tissues)
    curve: Mapping[str, CurvePoint] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Audit:
        """Read what ``result.json`` holds.

        Raises:
            TypeError: A figure lacks what it must have.
        """
        return read(cls, stored)
