"""The bracket: what a layer hides at least, by samples, and at most, by reading the image back."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
from ctinv.adapters._types import Image
from scipy.ndimage import gaussian_filter

from .evidence import Evidence, Mask, rms
from .record import Bounds, Figure, LowerBound, figure

if TYPE_CHECKING:
    from ctinv.invariance.refinement.refine import Refined

__all__ = ["bounds", "two_images"]

_PLACE = 2.0  # pixels; what differs between two images is named where it is larger than a pixel
_RIM = 8  # pixels
_WORTH = 1.0  # HU; smaller differences are not worth a sentence


def bounds(e: Evidence, inside: Mask) -> Bounds:
    """Lower and upper bounds of what is hidden, HU inside the body.

    Arguments:
        e: The evidence.
        inside: The body, (H, W).
    """
    told = None if e.scores is None else e.scores.reading
    lower = None if e.refined is None else _lower(e.refined, e.std, inside, "samples")
    noise = None
    if e.noise_refined is not None and e.std_noise is not None:
        noise = _lower(e.noise_refined, e.std_noise, inside, "noise realisations")
    reread = _reread(e, inside)
    more = 0.0 if reread is None else reread.value
    besides = "" if reread is None else ", and what the refined changes move it by"
    upper = None
    if told is not None and told.each:
        each = [math.hypot(error, more) for error in told.each]
        meaning = f"Error of the image read back, on held-out slices{besides}; more cannot be hidden."
        value = math.hypot(told.rmse, more)
        upper = Figure(value, "HU", len(each), min(each), max(each), "range", meaning)
    return Bounds(
        lower=lower,
        noise=noise,
        upper=upper,
        upper_here=_error(e.reading, e.x, inside, f"Error of this image read back{besides}.", more),
        reread=reread,
        decoded=_error(
            e.reading_code,
            e.reconstruction,
            inside,
            "Error of D(E(x_R)) against D(E(x)): that of the reading, without the noise.",
        ),
        decoded_held_out=None
        if told is None or told.decoded is None
        else figure(told.decoded, "HU", "Error of D(E(x_R)) against D(E(x)) on held-out patches."),
        converged=None if lower is None else lower.converged and (noise is None or noise.converged),
    )


def _lower(refined: Refined, spread: Image, inside: Mask, of: str) -> LowerBound:
    value, growth = rms(spread, inside), refined.growth
    # Growth falls from one doubling to the next: what is left is less than the series it begins.
    end = value * (1 + growth / (1 - growth)) if growth < 1 else float("inf")
    return LowerBound(
        value=value,
        unit="HU",
        n=refined.changes.shape[1],
        low=value,
        high=end,
        interval="search",
        meaning=f"Spread of {of} that the layer does not see; twice the steps of the search enlarged it by "
        f"{100 * growth:.0f} %.",
        growth=growth,
        steps=refined.steps,
        converged=refined.converged,
    )


def _reread(e: Evidence, inside: Mask) -> Figure | None:
    """How far the reading follows refined changes: what is allowed to differ at the layer, in HU."""
    if not e.reread:
        return None
    return figure(
        max(rms(moves, inside) for moves in e.reread),
        "HU",
        f"Refined changes move what is read back by this much: the layer's output is the same to "
        f"{100 * e.rho:g} % of what noise does, not to the last digit.",
        n=sum(map(len, e.reread)),
    )


def _error(image: Image | None, truth: Image, inside: Mask, meaning: str, more: float = 0.0) -> Figure | None:
    if image is None:
        return None
    return figure(math.hypot(rms(image - truth, inside), more), "HU", meaning)


def two_images(e: Evidence, inside: Mask) -> list[str]:
    """A sentence on two images that the layer does not tell apart; none where these are alike.

    Whatever is computed from the layer's output alone gives nearly the same for both, so on one of
    them it is off by half their distance at least. This is Le Cam's two-point bound with the two
    points as near to each other, for the layer, as ``rho`` says (L. Le Cam, Convergence of estimates
    under dimensionality restrictions, Ann. Statist. 1, 1973, https://doi.org/10.1214/aos/1193342380).
    """
    if e.refined is None:
        return []
    inside = inside.copy()
    for side in (slice(_RIM), slice(-_RIM, None)):  # at its border a layer sees less by its padding
        inside[side] = inside[:, side] = False
    changes = [np.zeros_like(e.x), *e.refined.at(e.rho)]
    if e.noise_refined is not None:
        changes += list(e.noise_refined.at(e.rho))
    differences = [
        (gaussian_filter(np.abs(a - b) * inside, _PLACE) * inside, np.abs(a - b))
        for a, b in itertools.combinations(changes, 2)
    ]
    smooth, exact = max(differences, key=lambda pair: float(pair[0].max()))
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    near = np.s_[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
    apart = float(np.sqrt(np.mean(exact[near] ** 2)))
    if apart < _WORTH:
        return []
    return [
        f"Around row {row}, column {column} two images that {e.observer.layer} does not tell apart differ by "
        f"{apart:.1f} HU: whatever follows, unless it reacts to less than {200 * e.rho:g} % of what noise "
        f"does, errs by {apart / 2:.1f} HU or more there on one of them."
    ]
