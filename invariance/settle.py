"""The spread of a fitted flow, set right on slices that it was not fitted on."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .flow import Mixing
from .optimise import Material, Objective, contexts

__all__ = ["settle"]

_DIRECTIONS = 8
_PATCHES = 1024
_FEWEST = 32
_HALF = 0.6745  # half of all normal numbers are smaller


@torch.no_grad()
def settle(objective: Objective, material: Material, first: int) -> dict[str, Any]:
    """Scale the invariance variable so that held-out patches have unit spread.

    A fitted flow is a little too sure of patches it has not seen, and of few directions (how bright
    a patch is as a whole) much too sure. Directions are found on the patches that were learned from;
    the spread along each of them, and one for all others, is measured on held-out ones and
    becomes part of the flow's last linear map. What this does to the likelihood is known and counted.

    Source: temperature scaling, Guo et al., ICML 2017, here for a density.

    Arguments:
        objective: Flow and embedder, fitted; the flow is changed.
        material: What they were fitted on.
        first: The first held-out patch to use; those before stay untouched, for tests of calibration.

    Returns:
        ``temperature``, the spread of most directions, ``widest``, the largest of all, and the number
        of ``settled_on`` patches; nothing where the flow has no last linear map or patches are few.
    """
    last = objective.flow.transform.transforms[-1]
    held, codes = material.test[first:], material.test_codes[first:]
    if not isinstance(last, Mixing) or len(held) < _FEWEST:
        return {}
    known = material.train[:_PATCHES]
    mean, spread = material.mean[: len(known)], material.spread[: len(known)]
    drawn = mean + spread * torch.randn(mean.shape, generator=torch.Generator().manual_seed(len(known)))
    v, fresh = (
        objective.flow(some, contexts(objective, material.store, places))[0].double()
        for some, places in ((drawn, known), (codes, held))
    )
    count = min(_DIRECTIONS, v.shape[1] - 1)
    directions = torch.linalg.eigh(v.T @ v).eigenvectors[:, -count:]
    along = fresh @ directions
    # Medians: single patches that the flow finds impossible must not widen all others.
    left = v.shape[1] - count
    each = (fresh - along @ directions.T).square().sum(1) / left
    rest = each.median().item() / (1 - 2 / (9 * left)) ** 3  # the median of chi-square
    variance = (along.abs().median(0).values / _HALF).square()
    # Some directions come out wide by chance: the standard error of such a variance is 2.33 / sqrt(n).
    clear = variance > rest * (1 + 3 * 2.33 / math.sqrt(len(fresh)))
    variance = torch.where(clear, variance, rest)
    last.follow(_whitening(directions, variance, rest))
    return {
        "temperature": math.sqrt(rest),
        "widest": math.sqrt(float(variance.max())),
        "settled_on": len(fresh),
    }


def _whitening(directions: Tensor, variance: Tensor, rest: float) -> Tensor:
    """The symmetric map that divides each direction by its spread, (features, features)."""
    scales = variance.rsqrt() - rest**-0.5
    eye = torch.eye(len(directions), dtype=directions.dtype)
    return eye * rest**-0.5 + (directions * scales) @ directions.T
