"""What a report says of an analysis, in the order in which it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctinv.invariance.audit.regions import TISSUE_NAMES
from ctinv.invariance.audit.scores import Score, scores
from ctinv.invariance.audit.verdict import HIDDEN
from ctinv.invariance.infra.pages import number

from .spectra import calibration_plot, curve_plot, fit_plot, spectrum_plot

if TYPE_CHECKING:
    from markupsafe import Markup

    from .result import AnalysisResult

__all__ = ["Bar", "Bracket", "Decision", "Group", "bracket", "decisions", "groups"]


@dataclass(frozen=True)
class Bracket:
    """What the layer hides, as one bar from 0 HU on.

    Arguments:
        hidden: Proven to be hidden, anatomy or noise, whichever is more, HU.
        anatomy: Hidden anatomy, HU.
        grain: Hidden noise, HU; None where it was not looked for.
        possible: Upper bound, on held-out slices or here, whichever is more, HU; None where there is none.
        noise: The image's own noise, HU; None where it is not known.
    """

    hidden: float
    anatomy: float
    grain: float | None
    possible: float | None
    noise: float | None

    @property
    def top(self) -> float:
        """The right end of the bar, HU."""
        return 1.05 * max(self.hidden, self.possible or 0.0, self.noise or 0.0) or 1.0

    def share(self, value: float) -> float:
        """Where a value lies on the bar, %."""
        return round(100 * value / self.top, 2)

    @property
    def told(self) -> str:
        """The bar in words."""
        parts = [f"proven hidden: {self.hidden:.1f} HU"]
        if self.possible is not None:
            parts.append(f"possibly hidden: up to {max(self.possible, self.hidden):.1f} HU")
        if self.noise is not None:
            parts.append(f"noise of the image: {self.noise:.1f} HU")
        return "; ".join(parts)


def bracket(e: AnalysisResult) -> Bracket | None:
    """The bracket of an analysis; None where nothing was refined."""
    b, noise = e.bounds, e.audit.map.noise
    if b.lower is None:
        return None
    grain = None if b.noise is None else b.noise.value
    return Bracket(
        hidden=max(b.lower.value, grain or 0.0),
        anatomy=b.lower.value,
        grain=grain,
        possible=max((u.value for u in (b.upper, b.upper_here) if u is not None), default=None),
        noise=None if noise is None else noise.value,
    )


@dataclass(frozen=True)
class Decision:
    """One of the three figures that decide.

    Arguments:
        title: The question that it answers.
        value: The answer, with its unit.
        says: One sentence on what it means here.
        grade: ``good``, ``bad``, or empty where it is neither.
    """

    title: str
    value: str
    says: str
    grade: str = ""


def decisions(e: AnalysisResult) -> list[Decision]:
    """How much is hidden, whether it really is, and whether the method worked here."""
    return [_how_much(e), _how_well(e), _whether(e)]


def _how_much(e: AnalysisResult) -> Decision:
    title, bounds = "How much is hidden?", bracket(e)
    if bounds is None:
        spread = e.audit.map.std
        if spread is None:
            return Decision(title, "not known", "No bounds were recorded.")
        return Decision(
            title, f"{number(spread.value)} HU", "Spread of samples that were not refined: read with care."
        )
    says = "At least; a layer that forgets nothing hides next to nothing."
    if bounds.noise:
        says = f"At least: {100 * bounds.hidden / bounds.noise:.0f} % of the image's own noise."
    if not e.found:
        return Decision(title, "nothing found", f"{says[:-1]}, no more than if the layer forgot nothing.")
    return Decision(title, f"{bounds.hidden:.1f} HU", says)


def _how_well(e: AnalysisResult) -> Decision:
    title, leak = "Is it hidden from the layer?", e.audit.leakage
    shown = leak.refined or leak.flow_from_reconstruction or leak.flow
    ratio = e.audit.noise_ratio.refined
    if ratio is not None and shown is not None:
        says = f"The samples move the layer by {100 * ratio.value:.2g} % of what noise does"
        says += f"; a change like them of another pattern by {_times(1, shown.value)} as much."
        return Decision(title, f"{100 * ratio.value:.2g} %", says, "good" if ratio.value <= 0.1 else "bad")
    if shown is None:
        return Decision(title, "not known", "No leakage was recorded.")
    says = f"Of a random change like the samples, the layer sees {100 * shown.value:.0f} % in them."
    return Decision(title, f"leakage {number(shown.value)}", says, "good" if shown.value <= HIDDEN else "bad")


def _times(a: float, b: float) -> str:
    return "many times" if b <= 0.01 * a else f"{a / b:.1f} times"


def _whether(e: AnalysisResult) -> Decision:
    title, controls = "Did the method work here?", e.audit.controls
    if controls is None:
        return Decision(title, "not known", "No controls were recorded.")
    count = f"{controls.value:g} {controls.unit or ''} controls passed".replace("  ", " ")
    strange = e.audit.image.strangeness
    if controls.failed:
        return Decision(title, count, f"Failed: {', '.join(controls.failed)}. Do not read the map.", "bad")
    if strange is not None and not strange.familiar:
        return Decision(title, count, "But the image is unlike those of the fit.", "bad")
    like = "; the image is like those of the fit" if strange is not None else ""
    return Decision(title, count, f"Cases with a known answer came out right{like}.", "good")


@dataclass(frozen=True)
class Bar:
    """One bar of a row of bars: its name, length in % of the longest, and text."""

    name: str
    share: float
    text: str


@dataclass(frozen=True)
class Group:
    """A folded group of figures.

    Arguments:
        title: The question that it answers.
        says: What is good, and what bad.
        rows: Its figures.
        plots: What reads faster as a plot, each with its heading.
        bars: The same for one figure by tissue, each with its heading.
    """

    title: str
    says: str
    rows: Sequence[Score]
    plots: Sequence[tuple[str, Markup]] = ()
    bars: Sequence[tuple[str, Sequence[Bar]]] = ()


_GROUPS = (
    (
        "How much is hidden",
        ("map", "bounds", "curve"),
        "Good: the bounds lie near each other, and the search had ended. Bad: they lie far apart, so that "
        "what is hidden is only known roughly.",
    ),
    (
        "Is it really hidden",
        ("leakage", "noise_ratio", "output", "leakage_in"),
        "Good: a noise ratio as small as was asked for, and leakage near 0. Leakage near 1: the layer is "
        "blind to this texture whatever its pattern, or, without refinement, it sees the samples.",
    ),
    (
        "Is the spread right",
        ("flow",),
        "Good: the coverage curve lies on the dashed line, and knowing z makes the likelihood better. Below "
        "the line samples vary too little, above it too much.",
    ),
    (
        "Where is it hidden",
        ("where",),
        "Neither good nor bad: which tissues hold the hidden changes, and how fine these are beside noise.",
    ),
    (
        "Can the prior show this image",
        ("embedding", "image"),
        "Good: the reconstruction lies near the image (noise aside), and the image is no stranger than those "
        "of the fit. What the reconstruction lacks, no sample can show.",
    ),
)


def groups(e: AnalysisResult) -> list[Group]:
    """All figures of the audit in groups; those of groups that are not known here come last."""
    rows = [row for row in scores(e.audit) if row.key != "controls"]
    controls = [row for row in scores(e.audit) if row.key == "controls"]
    extra: dict[str, dict[str, Any]] = {
        "map": {"plots": _plots(("Hidden spread at each noise ratio", curve_plot(e.audit)))},
        "leakage": {"bars": _bars("Leakage by tissue", rows, "leakage_in.", top=1.0)},
        "flow": {"plots": _plots(("Coverage of held-out codes", calibration_plot(e.meta.fit)))},
        "where": {
            "bars": _bars("Share of the map's variance by tissue", rows, "where.", unit="%"),
            "plots": _plots(("How fine the hidden changes are", spectrum_plot(e))),
        },
        "embedding": {"plots": _plots(("How the fit went", fit_plot(e.meta.fit)))},
    }
    sections, taken = [], set()
    for title, keys, says in _GROUPS:
        some = [row for row in rows if row.key.split(".")[0] in keys]
        some += controls if keys[0] == "leakage" else []
        taken |= {row.key for row in some}
        if some:
            sections.append(Group(title, says, some, **extra.get(keys[0], {})))
    rest = [row for row in rows if row.key not in taken]
    if rest:
        sections.append(Group("Further figures", "What each says stands beside it.", rest))
    return sections


def _plots(*plots: tuple[str, Markup | None]) -> list[tuple[str, Markup]]:
    return [(title, plot) for title, plot in plots if plot is not None]


def _bars(
    title: str, rows: Sequence[Score], start: str, unit: str | None = None, top: float | None = None
) -> list[tuple[str, list[Bar]]]:
    """One bar for each tissue; none where fewer than two are known."""
    some = list(_of_tissues(rows, start, unit))
    if len(some) < 2:
        return []
    longest = top or max(value for _, value, _ in some) or 1.0
    return [(title, [Bar(n, round(min(100.0, 100 * v / longest), 1), text) for n, v, text in some])]


def _of_tissues(rows: Sequence[Score], start: str, unit: str | None) -> Iterator[tuple[str, float, str]]:
    for row in rows:
        tissue = row.key.removeprefix(start)
        if not row.key.startswith(start) or tissue not in TISSUE_NAMES or row.value is None:
            continue
        if unit is None or row.unit == unit:
            yield TISSUE_NAMES[tissue], float(row.value), f"{number(row.value)} {row.unit}".strip()
