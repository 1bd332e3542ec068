"""The spread of a fitted flow, set right on slices that it was not fitted on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .flow_loop import Material, Objective, contexts

__all__ = ["Rescaling", "rescale_temperature"]

_FEWEST = 32


@dataclass(frozen=True)
class Rescaling:
    """What held-out patches said of the invariance variable before it was rescaled.

    Arguments:
        temperature: Spread of most patches.
        settled_on: How many patches.
    """

    temperature: float
    settled_on: int


@torch.no_grad()
def rescale_temperature(objective: Objective, material: Material, first: int) -> Rescaling | None:
    """Scale the invariance variable so that held-out patches have unit spread.

    A fitted flow is a little too sure of patches it has not seen: one temperature sets that right.

    Source: Guo, Pleiss, Sun, Weinberger, On calibration of modern neural networks, ICML 2017,
    https://arxiv.org/abs/1706.04599, for a classifier's temperature; here a density's.

    Arguments:
        objective: Flow and embedder, fitted; the flow is changed.
        material: What they were fitted on.
        first: The first held-out patch to use; those before stay untouched, for tests of calibration.

    Returns:
        What was measured; None, and nothing is changed, where patches are few.
    """
    flow, held, codes = objective.flow, material.test[first:], material.test_codes[first:]
    if len(held) < _FEWEST:
        return None
    fresh = flow(codes, contexts(objective, material.store, held))[0].double()
    rest = _typical(fresh, flow.features)
    flow.temperature.mul_(math.sqrt(rest))
    return Rescaling(math.sqrt(rest), len(fresh))


def _typical(v: Tensor, dimensions: int) -> float:
    """The variance of most patches (N, features): a median, or single ones that the flow finds impossible
    would widen all others.
    """
    each = v.square().sum(1) / dimensions
    return each.median().item() / (1 - 2 / (9 * dimensions)) ** 3  # the median of chi-square
