"""The invariance variable's draws, each a function of seed, tile and sample number alone."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["invariance_noise"]

_PURPOSE = 3  # keeps these draws apart from others that start from the same seed


def invariance_noise(seed: int, tile: int, start: int, stop: int, features: int) -> Tensor:
    """``v ~ N(0, 1)`` of the samples ``start`` to ``stop`` of one tile, (stop - start, features).

    Every sample has its own place in the sequence of a counter-based generator, so that samples can
    be drawn in any order, in any portions and anywhere, and more of them start with the same ones.

    Source: Salmon et al., SC 2011 (Philox).

    Example:
        >>> few, many = invariance_noise(0, 7, 3, 5, 4), invariance_noise(0, 7, 0, 250, 4)
        >>> torch.equal(few, many[3:5])
        True
    """
    key = np.random.SeedSequence([seed, _PURPOSE, tile]).generate_state(2, np.uint64)
    drawn = np.empty((stop - start, features), np.float32)
    for row, sample in zip(drawn, range(start, stop), strict=True):
        counter = np.array([0, 0, sample, 0], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(drawn)
