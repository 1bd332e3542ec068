"""The audit in one sentence per layer, for a reader who will look at nothing else."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HIDDEN", "Facts", "hides", "verdict"]

HIDDEN = 0.05
"""Leakage up to which a change counts as hidden."""

_SEEN = 0.5
_NOTHING = 1.0
_TEXTURE = 0.8  # matched controls have the samples' spectrum: where that is hidden, they are too
_LIKE_IDENTITY = 1.5


@dataclass(frozen=True)
class Facts:
    """What a verdict rests on.

    Arguments:
        layer: The layer's name.
        std: RMS of the map inside the body, HU.
        leakage: Median leakage of the shown samples, counted from ``x``; from ``D(E(x))`` where
            they are not refined.
        rho: Noise ratio that the samples were refined to; None where they were not.
        noise: Standard deviation of the image's noise inside the body, HU.
        why: Why there was no refinement, as a clause.
        ignored: Whether the flow does no better with the right ``z`` than with wrong ones.
        failed: What the controls that failed mean, as clauses.
        noise_hidden: Spread of refined noise realisations, HU; None where there were none.
        upper: Error of the image read back from the layer, HU; None where it cannot be.
        converged: Whether the search for hidden changes had ended.
    """

    layer: str
    std: float
    leakage: float
    rho: float | None
    noise: float
    why: str = ""
    ignored: bool = False
    failed: tuple[str, ...] = ()
    noise_hidden: float | None = None
    upper: float | None = None
    converged: bool = True

    @property
    def lower(self) -> float:
        """What is hidden at least, HU: anatomy or noise, whichever is more."""
        return max(self.std, self.noise_hidden or 0.0)


def hides(facts: Facts) -> bool:
    """Whether refined samples differ by more than they would for a layer that forgets nothing.

    Such a layer, the identity, lets changes of ``rho`` times the noise through; what does not exceed
    that much, or 1 HU, is no finding.
    """
    if facts.rho is None:
        return facts.std > _NOTHING
    return facts.lower > max(_NOTHING, _LIKE_IDENTITY * facts.rho * facts.noise)


def verdict(facts: Facts) -> str:
    """One sentence on what the map shows and whether to read it.

    Example:
        >>> verdict(Facts("conv1", 0.4, 0.5, 0.03, 20.0))
        'conv1 hides nothing that was found: changes that move it by less than 3 % of what noise does \
have a spread of 0.4 HU, no more than if it forgot nothing. There is no map to read.'
    """
    f = facts
    if f.failed:
        return f"Do not read this map: {' and '.join(f.failed)} (controls that failed)."
    if f.rho is None:
        return _unrefined(f)
    small = f"{100 * f.rho:g} % of what noise does"
    if not hides(f):
        bound = (
            "no more than if it forgot nothing"
            if f.lower <= _LIKE_IDENTITY * f.rho * f.noise
            else "which is next to nothing"
        )
        return (
            f"{f.layer} hides nothing that was found: changes that move it by less than {small} have a "
            f"spread of {f.lower:.1f} HU, {bound}. {_above(f)}There is no map to read."
        )
    return (
        f"{f.layer} hides {_bracket(f)}: changes of {f.lower:.1f} HU RMS move it by less than {small}. "
        f"{_kind(f)}"
    )


def _bracket(f: Facts) -> str:
    """The bounds in words, and what of the lower one is anatomy and what noise."""
    if f.upper is None or f.upper <= f.lower:
        size = f"{f.lower:.1f} HU or more"
    else:
        size = f"between {f.lower:.1f} and {f.upper:.1f} HU"
    parts = f" (anatomy {f.std:.1f}, noise {f.noise_hidden:.1f})" if f.noise_hidden is not None else ""
    return size + parts


def _above(f: Facts) -> str:
    if f.upper is None:
        return ""
    return f"The image can be read back from it to within {f.upper:.1f} HU; on average no more is hidden. "


def _kind(f: Facts) -> str:
    """How the layer treats other changes of the same kind, and what the search left open."""
    rest = "" if f.converged else " The search had not ended: more may be hidden than the lower figure says."
    if f.leakage >= _TEXTURE:
        return (
            "Any other change of the same size and texture is hidden from it as well: it is blind to this "
            f"texture.{rest}"
        )
    lost = ": it has lost just these structures" if f.leakage <= HIDDEN else ""
    times = f"{1 / f.leakage:.1f} times" if f.leakage > 0.01 else "100 times or more"
    return f"Changes of the same size and texture but another pattern move it {times} as much{lost}.{rest}"


def _unrefined(f: Facts) -> str:
    start = f"The samples are not refined ({f.why}). " if f.why else ""
    if f.ignored and f.leakage <= HIDDEN:
        return start + (
            f"The fit found nothing in {f.layer} that tells about the image: the map is the data's own "
            "spread."
        )
    if not hides(f):
        return start + f"{f.layer} hides nothing that was found: there is no map to read."
    if f.leakage <= HIDDEN:
        return start + (
            f"This map can be read: {f.layer} sees {100 * f.leakage:.0f} % of what a random change of the "
            "same size and texture would show it."
        )
    if f.leakage <= _SEEN:
        return start + (
            f"Read this map with care: {f.layer} still sees {100 * f.leakage:.0f} % of what a random change "
            "of the same size and texture would show it."
        )
    return start + (
        f"Do not read this map as invariances of {f.layer}: the layer sees {100 * f.leakage:.0f} % of what a "
        "random change of the same size and texture would. The map bounds what the flow could not tell."
    )
