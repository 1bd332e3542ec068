"""The spread of a fitted flow, set right on slices that it was not fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from ctinv.invariance.infra.randomness import Purpose, generator
from ctinv.invariance.networks.flow import Mixing
from torch import Tensor

from .flow_loop import Material, Objective, contexts

__all__ = ["Rescaling", "rescale_temperature"]

_DIRECTIONS = 8
_PATCHES = 1024
_FEWEST = 32
_HALF = 0.6745  # half of all normal numbers are smaller


@dataclass(frozen=True)
class Rescaling:
    """What held-out patches said of the invariance variable before it was rescaled.

    Arguments:
        temperature: Spread of most directions.
        settled_on: How many patches.
        widest: Largest spread of a direction; None where the flow ends with no linear map.
    """

    temperature: float
    settled_on: int
    widest: float | None = None


@torch.no_grad()
def rescale_temperature(
    objective: Objective, material: Material, first: int, seed: int = 0
) -> Rescaling | None:
    """Scale the invariance variable so that held-out patches have unit spread.

    A fitted flow is a little too sure of patches it has not seen: one temperature sets that right. Where the
    flow ends with a linear map, more can be done. Of few directions (how bright a patch is as a whole) it is
    much too sure; these are found on the patches that were learned from, and the spread along each of
    them, measured on held-out ones, becomes part of that map. What this does to the likelihood is known and
    counted.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017,
    https://arxiv.org/abs/1706.04599, for a classifier's temperature; here a density's.

    Arguments:
        objective: Flow and embedder, fitted; the flow is changed.
        material: What they were fitted on.
        first: The first held-out patch to use; those before stay untouched, for tests of calibration.
        seed: Draws codes of the patches that were learned from.

    Returns:
        What was measured; None, and nothing is changed, where patches are few.
    """
    flow, held, codes = objective.flow, material.test[first:], material.test_codes[first:]
    if len(held) < _FEWEST:
        return None
    fresh = flow(codes, contexts(objective, material.store, held))[0].double()
    widest = None
    last = flow.transform.transforms[-1]
    if isinstance(last, Mixing):
        known = material.train[:_PATCHES]
        mean, spread = material.mean[: len(known)], material.spread[: len(known)]
        drawn = mean + spread * torch.randn(mean.shape, generator=generator(seed, Purpose.TEMPERATURE))
        v = flow(drawn, contexts(objective, material.store, known))[0].double()
        count = min(_DIRECTIONS, v.shape[1] - 1)
        directions = torch.linalg.eigh(v.T @ v).eigenvectors[:, -count:]
        along = fresh @ directions
        rest = _typical(fresh - along @ directions.T, v.shape[1] - count)
        variance = (along.abs().median(0).values / _HALF).square()
        # Some directions come out wide by chance: the standard error of such a variance is 2.33 / sqrt(n).
        clear = variance > rest * (1 + 3 * 2.33 / math.sqrt(len(fresh)))
        variance = torch.where(clear, variance, rest)
        last.follow(_narrowing(directions, variance / rest))
        widest = math.sqrt(float(variance.max()))
    else:
        rest = _typical(fresh, flow.features)
    flow.temperature.mul_(math.sqrt(rest))
    return Rescaling(math.sqrt(rest), len(fresh), widest)


def _typical(v: Tensor, dimensions: int) -> float:
    """The variance of most patches (N, features): a median, or single ones that the flow finds impossible
    would widen all others.
    """
    each = v.square().sum(1) / dimensions
    return each.median().item() / (1 - 2 / (9 * dimensions)) ** 3  # the median of chi-square


def _narrowing(directions: Tensor, variance: Tensor) -> Tensor:
    """The symmetric map that divides each direction by its spread, (features, features)."""
    eye = torch.eye(len(directions), dtype=directions.dtype)
    return eye + (directions * (variance.rsqrt() - 1)) @ directions.T
