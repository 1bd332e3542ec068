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
    """

    layer: str
    std: float
    leakage: float
    rho: float | None
    noise: float
    why: str = ""
    ignored: bool = False
    failed: tuple[str, ...] = ()


def hides(facts: Facts) -> bool:
    """Whether refined samples differ by more than they would for a layer that forgets nothing.

    Such a layer, the identity, lets changes of ``rho`` times the noise through; what does not exceed
    that much, or 1 HU, is no finding.
    """
    if facts.rho is None:
        return facts.std > _NOTHING
    return facts.std > max(_NOTHING, _LIKE_IDENTITY * facts.rho * facts.noise)


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
            if f.std <= _LIKE_IDENTITY * f.rho * f.noise
            else "which is next to nothing"
        )
        return (
            f"{f.layer} hides nothing that was found: changes that move it by less than {small} have a "
            f"spread of {f.std:.1f} HU, {bound}. There is no map to read."
        )
    moved = f"changes with a spread of {f.std:.1f} HU move it by less than {small}"
    if f.leakage <= HIDDEN:
        return f"What the map shows is hidden from {f.layer} to {100 * (1 - f.leakage):.0f} %: {moved}."
    if f.leakage >= _TEXTURE:
        return f"{f.layer} is blind to this texture, whatever its pattern: {moved}, and so would others."
    return (
        f"{f.layer} does not see what the map shows above noise: {moved}. Changes of the same size and "
        f"texture but another pattern move it {1 / f.leakage:.1f} times as much."
    )


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
        return start + f"What the map shows is hidden from {f.layer} to {100 * (1 - f.leakage):.0f} %."
    if f.leakage <= _SEEN:
        return start + (
            f"Read this map with care: {f.layer} still sees {100 * f.leakage:.0f} % of what a random change "
            "of the same size and texture would show it."
        )
    return start + (
        f"Do not read this map as invariances of {f.layer}: the layer sees {100 * f.leakage:.0f} % of what a "
        "random change of the same size and texture would. The map bounds what the flow could not tell."
    )
