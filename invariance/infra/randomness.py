"""Random numbers with names: every purpose draws from a stream of its own, whatever the seed."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np
from ctinv.adapters.errors import CtinvError
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

__all__ = ["Purpose", "generator", "philox_key", "rng", "torch_seed"]


@enum.unique
class Purpose(enum.IntEnum):
    """What random numbers are drawn for.

    A number keeps its meaning for good: results drawn with it could not be drawn again otherwise.
    """

    PHANTOM = 1
    """Anatomy, exposure and noise of one phantom; its number follows."""
    SLICES = 2
    """Which slices of a large data set are used."""
    DOSE = 3
    """Noise of a simulated low dose; the slice's own number follows."""
    PATCHES = 4
    """Pairs of patches of two doses."""
    NOISE = 5
    """Noise that an analysis compares the layer's changes with."""

    DOSE_SERIES = 6
    """Noise of one slice at several doses, the same pattern for all of them."""

    VAE_WEIGHTS = 10
    VAE_PATCHES = 11
    VAE_NOISE = 12
    """Codes of the patches in training, and the points at which a critic's slope is taken."""
    PLACES = 13
    """How slices are rolled for a flow, and where its patches lie."""
    FLOW_WEIGHTS = 14
    FLOW_TRAINING = 15
    """Masks, codes of the patches and batches."""
    NOVELTY = 17
    """Fitting slices that an image is compared with."""
    CALIBRATION_DRAWS = 18
    CALIBRATION_TESTS = 19
    """Directions, reference points and ties."""
    CALIBRATION_LAW = 20
    """Codes whose Gaussian law a flow is compared with."""

    READING = 21
    """Places, crops and weights of the reading."""

    INVARIANCES = 30
    """The samples of one tile; the tile's number follows."""
    LEAKAGE_EMBEDDED = 31
    LEAKAGE_DIRECT = 32
    LEAKAGE_REFINED = 33
    LEAKAGE_CONTROL = 34
    STRUCTURE_BOUNDS = 35
    """Resampled squares, for the bounds of a ratio of spreads."""

    LESION_MOVES = 40
    """Noise on the whole slice, that a lesion's move is compared with."""
    LESION_NOISE = 41
    """Noise that hides a lesion; the portion's number follows."""
    OBSERVER_HALVES = 42
    """Which cases teach an observer and which judge it; the split's number follows."""
    OBSERVER_CASES = 43
    """Cases resampled for the intervals of an observer's figures."""
    PROTOCOL_NOISE = 44
    """Noise of a protocol's images; the dose's and the portion's numbers follow."""
    PROTOCOL_PLACES = 45
    """Where a protocol looks in anatomy; the portion's number follows."""
    PROTOCOL_DOSES = 46
    """In which order the resamples of one dose are set beside those of others; the dose's number follows."""

    DENOISER_WEIGHTS = 50
    DENOISER_STEP = 51
    """Directions in which one training step of a denoiser is measured; its number follows."""
    DENOISER_PATCHES = 52
    """Patches of one training step; its number follows."""

    SPECTRUM = 54
    """Starts of the search for a layer's most hidden and most amplified changes."""

    WORKLOAD = 60
    """Inputs of a speed measurement."""
    TRUTH_FIELD = 61
    TRUTH_DRAWS = 62
    TRUTH_REGION = 63
    TRUTH_PLACES = 64
    TRUTH_LESION = 65


def rng(seed: int, purpose: Purpose, *parts: int) -> np.random.Generator:
    """NumPy's generator for one purpose.

    Arguments:
        seed: The user's seed, 0 or more.
        purpose: What is drawn.
        parts: Numbers, 0 or more, that tell streams of one purpose apart, such as a tile's.

    Raises:
        CtinvError: A negative seed.

    Example:
        >>> rng(0, Purpose.PHANTOM, 1).integers(100) == rng(0, Purpose.PHANTOM, 1).integers(100)
        np.True_
    """
    return np.random.default_rng(_sequence(seed, purpose, parts))


def torch_seed(seed: int, purpose: Purpose, *parts: int) -> int:
    """What PyTorch's generators are seeded with for one purpose, see :func:`rng`."""
    # The low 32 bits are all that PyTorch's generator on the CPU takes of a seed.
    return int(_sequence(seed, purpose, parts).generate_state(1)[0])


def generator(seed: int, purpose: Purpose, *parts: int) -> torch.Generator:
    """PyTorch's generator on the CPU for one purpose, see :func:`rng`."""
    import torch

    return torch.Generator().manual_seed(torch_seed(seed, purpose, *parts))


def philox_key(seed: int, purpose: Purpose, *parts: int) -> NDArray[np.uint64]:
    """Key (2,) of a counter-based generator, whose every number can be drawn by itself, see :func:`rng`.

    Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011
    (Philox), https://doi.org/10.1145/2063384.2063405.
    """
    return _sequence(seed, purpose, parts).generate_state(2, np.uint64).astype(np.uint64)


def _sequence(seed: int, purpose: Purpose, parts: tuple[int, ...]) -> np.random.SeedSequence:
    if seed < 0:
        raise CtinvError(f"seed {seed} is negative; give 0 or more")
    # As a spawn key, the purpose cannot be taken for a part of a large seed, nor a trailing 0 be lost.
    return np.random.SeedSequence(seed, spawn_key=(purpose, *parts))
