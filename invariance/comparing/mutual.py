"""What one layer hides and another shows: samples of one read in the other, and refined against both."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.invariance.audit.evidence import rms
from ctinv.invariance.explaining.analysis import spread_map
from ctinv.invariance.refinement.refine import RHO, longest, refine
from ctinv.invariance.refinement.sight import Joint, Sight

from .record import OneSided

__all__ = ["one_sided", "one_sided_pairs", "read_in_all"]


def one_sided(
    hides: Sight,
    sees: Sight,
    changes: Image,
    *,
    rho: float = RHO,
    labels: tuple[str, str] | None = None,
) -> OneSided:
    """What is left of changes that one layer hides when the part that another hides too is taken out.

    The changes are refined against both layers as one, whose noise ratio is the root mean square of
    theirs; what that refinement takes away is seen by the other layer alone. For linear layers it is
    the part of each change that lies in the null space of the first and outside that of the second.

    Arguments:
        hides: The layer that the changes are hidden from, at a slice.
        sees: The other layer, at the same slice.
        changes: Changes that the first hides, (K, H, W), HU.
        rho: The noise ratio that counts as hidden.
        labels: What to call the two.

    Raises:
        UnsupportedModelError: A denoiser has no gradients.
    """
    whole = hides.whole(changes)
    # What the first layer's own analysis let through is no finding about the second.
    allowed = max(rho, *(hides.ratio(change) for change in whole)) * (1 + 1e-6)
    joint = Joint([hides, sees])
    only = np.zeros_like(whole)
    seen = np.array([_moves(joint, hides.x, change) > allowed for change in whole])
    if seen.any():
        most = longest(joint, hides.x, int(seen.sum()))
        refined = refine(joint, hides.x, whole[seen], 1.0, rho=allowed, rhos=(), most=most)
        only[seen] = whole[seen] - refined.at(allowed)
    spread, _ = spread_map(only)
    inside = hides.body
    own = hides.own
    first, second = labels or (hides.observer.layer, sees.observer.layer)
    return OneSided(
        first,
        second,
        only[:, *own],
        spread[own],
        rms(spread, inside),
        float(np.median([hides.ratio(change) for change in only])),
        float(np.median([sees.ratio(change) for change in only])),
        rho * rms(hides.noise, inside),
    )


def _moves(joint: Joint, x: Image, change: Image) -> float:
    """The noise ratio of a change in both layers as one."""
    base = torch.from_numpy(x)[None, None]
    return float((joint(base + torch.from_numpy(change)[None, None]) - joint(base)).norm())


def read_in_all(sights: Sequence[Sight], changes: Sequence[Image]) -> npt.NDArray[np.float64]:
    """The noise ratio of the changes of each layer in every layer, (L, L): median over the changes.

    Arguments:
        sights: The layers, at one slice.
        changes: What each hides, (K, H, W), HU.
    """
    return np.array(
        [[np.median([s.ratio(c) for c in s.whole(own)]) for s in sights] for own in changes], dtype=np.float64
    )


def one_sided_pairs(
    sights: Mapping[str, Sight],
    changes: Mapping[str, Image],
    *,
    rho: float = RHO,
    progress: Progress | None = None,
) -> tuple[OneSided, ...]:
    """:func:`one_sided` for every ordered pair of layers that has changes and gradients.

    Where there are several networks, two layers of one are no pair: pairs take as long as analyses, and
    their number grows with the square of that of the layers.
    """
    usable = [label for label in sights if sights[label].observer.differentiable]
    networks = {label: sights[label].observer.denoiser.fingerprint for label in usable}
    several = len(set(networks.values())) > 1
    pairs = [
        (a, b)
        for a, b in itertools.permutations(usable, 2)
        if len(changes.get(a, ())) > 1 and not (several and networks[a] == networks[b])
    ]
    answers = []
    for number, (a, b) in enumerate(pairs):
        answers.append(one_sided(sights[a], sights[b], changes[a], rho=rho, labels=(a, b)))
        if progress:
            progress("comparing", number + 1, len(pairs))
    return tuple(answers)
