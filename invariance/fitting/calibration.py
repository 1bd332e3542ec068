"""Calibration: whether the codes that a flow draws are distributed as those that belong to ``z``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.sampling.inverse import FlowInverse
from torch import Tensor

if TYPE_CHECKING:
    from ctinv.invariance.networks.embedder import Embedder
    from ctinv.invariance.networks.flow import ConditionalFlow

    from .patches import Place
    from .stores import RepresentationStore

__all__ = ["LEVELS", "Calibration", "calibrate", "calibrate_flow", "gaussian_density"]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels of the highest-density regions."""

Codes = npt.NDArray[np.float64]
Draw = Callable[[int, int], Codes]
LogProb = Callable[[Codes, int], Codes]

_PROJECTIONS = 64
_CHUNK = 64


@dataclass(frozen=True)
class Calibration:
    """How well drawn codes and true codes of the same contexts agree.

    p-values are those of uniform ranks, for pairs that are independent; patches of few slices are
    not quite, so that small p-values come somewhat too often.

    Arguments:
        pairs: Pairs of code and context.
        draws: Codes drawn for each context.
        levels: Levels of the highest-density regions.
        coverage: Share of true codes inside the region of each level.
        deviation: Largest difference of coverage from its level, in points (1/100).
        coverage_p: p-value of the levels at which the true codes lie (Kolmogorov-Smirnov).
        sbc_p: Smallest p-value of the ranks along a direction, times the number of directions.
        sbc_failing: Share of directions whose own p-value is below 5 %; 5 % is expected.
        directions: Directions looked at: every number of the code, and random ones.
        tarp_atc: Area between TARP's coverage and its level, above level 1/2: negative where the
            draws are too narrow or beside the truth, positive where too wide, 1/8 at most.
        tarp_p: p-value of TARP's levels (Kolmogorov-Smirnov).
        error_ratio: RMS distance of true codes from the mean draw, over what the draws' spread makes
            it: 1 is right, above 1 the draws are too narrow or off.
        nll: Negative log-likelihood in bits per dimension.
        nll_shuffled: The same with contexts of other pairs.
        nll_unconditional: The same of a density that knows no context; None without one.
    """

    pairs: int
    draws: int
    levels: tuple[float, ...]
    coverage: tuple[float, ...]
    deviation: float
    coverage_p: float
    sbc_p: float
    sbc_failing: float
    directions: int
    tarp_atc: float
    tarp_p: float
    error_ratio: float
    nll: float
    nll_shuffled: float
    nll_unconditional: float | None = None

    @property
    def passes(self) -> bool:
        """Whether coverage, SBC and TARP together find nothing wrong at the 1 % level."""
        return 3 * min(self.coverage_p, self.sbc_p, self.tarp_p) >= 0.01

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "passes": self.passes}


def calibrate(
    codes: npt.ArrayLike,
    draw: Draw,
    log_prob: LogProb,
    *,
    draws: int = 64,
    seed: int = 0,
    unconditional: Callable[[Codes], Codes] | None = None,
) -> Calibration:
    """Test a conditional sampler and density on exact joint pairs of code and context.

    Every test compares one true code with draws for the same context by a rank that is uniform
    where both follow one law: of its density among the draws' (expected coverage of highest-density
    regions), of its coordinate along a direction (SBC), and of its distance from a random point
    (TARP). Ties are broken at random, so that the ranks are uniform exactly.

    Sources: Talts et al., arXiv 1804.06788, 2018 (SBC); Hermans et al., TMLR 2022 (expected
    coverage); Lemos et al., ICML 2023 (TARP). The package ``sbi`` holds the same tests, bound to its
    own posterior classes, and would bring some ten further packages along for them.

    Arguments:
        codes: True codes (N, D), the n-th belonging to context n; 8 or more.
        draw: Context number and count to codes (count, D).
        log_prob: Codes (M, D) and a context number to natural log-densities (M,).
        draws: Codes to draw for each context.
        seed: Draws directions, reference points and ties.
        unconditional: Codes (M, D) to log-densities (M,) without any context, to compare with.

    Raises:
        CtinvError: Too few pairs or draws, or values that are not finite.
    """
    truth = np.asarray(codes, dtype=np.float64)
    if truth.ndim != 2 or len(truth) < 8 or draws < 2:
        raise CtinvError(
            f"codes of shape {truth.shape} with {draws} draws cannot be tested; "
            "give (N, D) with 8 pairs or more, and 2 draws or more"
        )
    count, size = truth.shape
    rng = np.random.default_rng([seed, 7])
    drawn = [np.asarray(draw(k, draws), dtype=np.float64) for k in range(count)]
    if not all(np.isfinite(some).all() for some in drawn):
        raise CtinvError("the flow draws codes that are not finite; fit again")
    # Of the draws alone: a scale that knew the true codes would bring these nearer than draws can be.
    scale = np.maximum(np.concatenate(drawn).std(0), 1e-12)
    # One cycle through all pairs: with shorter ones, pairs would share their random points.
    cycle = rng.permutation(count)
    others = np.empty(count, dtype=int)
    others[cycle] = np.roll(cycle, 1)
    random = rng.standard_normal((size, _PROJECTIONS if size > 1 else 0)) / scale[:, None]
    density, distance = np.empty(count), np.empty(count)
    along = np.empty((count, size + random.shape[1]))
    right, wrong = np.empty(count), np.empty(count)
    error, spread = np.zeros(size), np.zeros(size)
    for k, code in enumerate(truth):
        both = np.concatenate([code[None], drawn[k]])
        other = truth[others[k]]
        logs = np.asarray(log_prob(np.concatenate([both, other[None]]), k), dtype=np.float64)
        if not np.isfinite(logs).all():
            raise CtinvError("the flow gives codes densities that are not finite; fit again")
        density[k] = _rank(-logs[:-1, None], rng)[0]
        away = np.square((both - other) / scale).sum(1)
        distance[k] = _rank(away[:, None], rng)[0]
        along[k] = _rank(np.concatenate([both, both @ random], 1), rng)
        right[k], wrong[k] = logs[0], logs[-1]
        error += np.square(code - drawn[k].mean(0))
        spread += (1 + 1 / draws) * drawn[k].var(0, ddof=1)
    coverage = tuple(float(np.mean(density <= level)) for level in LEVELS)
    sbc = _uniform(along)
    unit = -1 / (size * math.log(2))
    free = None if unconditional is None else float(np.mean(unconditional(truth))) * unit
    ratios = error / np.maximum(spread, 1e-300)
    return Calibration(
        pairs=count,
        draws=draws,
        levels=LEVELS,
        coverage=coverage,
        deviation=100 * max(abs(c - level) for c, level in zip(coverage, LEVELS, strict=True)),
        coverage_p=float(_uniform(density[:, None])[0]),
        sbc_p=float(min(1.0, sbc.min() * len(sbc))),
        sbc_failing=float(np.mean(sbc < 0.05)),
        directions=len(sbc),
        # The integral of (share of levels below a) - a, for a from 1/2 to 1.
        tarp_atc=float(np.mean(1 - np.maximum(distance, 0.5))) - 0.375,
        tarp_p=float(_uniform(distance[:, None])[0]),
        error_ratio=float(np.sqrt(ratios.mean())),
        nll=float(right.mean()) * unit,
        nll_shuffled=float(wrong.mean()) * unit,
        nll_unconditional=free,
    )


def _rank(values: Codes, rng: np.random.Generator) -> Codes:
    """Of the first row among all rows, per column, from 0 to 1: uniform where all follow one law."""
    first, rest = values[0], values[1:]
    below, equal = (rest < first).sum(0), (rest == first).sum(0)
    ranks: Codes = (below + rng.random(len(first)) * (equal + 1)) / len(values)
    return ranks


def _uniform(ranks: Codes) -> Codes:
    """p-value of each column of (N, K) as uniform numbers, by Kolmogorov and Smirnov."""
    from scipy.stats import kstwo

    count = len(ranks)
    ranks = np.sort(ranks, 0)
    steps = np.arange(count + 1)[:, None] / count
    apart = np.maximum((steps[1:] - ranks).max(0), (ranks - steps[:-1]).max(0))
    return np.asarray(kstwo.sf(apart, count), dtype=np.float64)


def gaussian_density(codes: npt.ArrayLike) -> Callable[[Codes], Codes]:
    """The Gaussian law of codes (N, D) as a log-density, for want of a flow that knows no context.

    The covariance is drawn towards its diagonal by as much as serves a quarter of the codes best.

    Raises:
        CtinvError: Fewer than 8 codes.
    """
    given = np.asarray(codes, dtype=np.float64)
    if given.ndim != 2 or len(given) < 8:
        raise CtinvError(f"codes of shape {given.shape} tell no law; give (N, D) with 8 or more")
    part = 3 * len(given) // 4
    tried = [
        (float(np.mean(_normal(given[:part], a)(given[part:]))), a) for a in (1e-4, 1e-3, 0.01, 0.1, 1.0)
    ]
    return _normal(given, max(tried)[1])


def _normal(codes: Codes, shrink: float) -> Callable[[Codes], Codes]:
    mean, size = codes.mean(0), codes.shape[1]
    covariance = np.cov(codes.T).reshape(size, size) * (1 - shrink)
    variances = np.maximum(codes.var(0, ddof=1), 1e-12)
    covariance[np.diag_indices(size)] = variances
    root = np.linalg.cholesky(covariance)
    constant = np.log(np.diag(root)).sum() + 0.5 * size * math.log(2 * math.pi)

    def density(values: Codes) -> Codes:
        white = np.linalg.solve(root, (values - mean).T)
        logs: Codes = -0.5 * np.square(white).sum(0) - constant
        return logs

    return density


@torch.no_grad()
def calibrate_flow(
    flow: ConditionalFlow,
    embedder: Embedder,
    store: RepresentationStore,
    places: Sequence[Place],
    codes: Tensor,
    *,
    known: Tensor | None = None,
    draws: int = 64,
    seed: int = 0,
) -> Calibration:
    """Test a fitted flow on held-out patches.

    A code drawn from the autoencoder's posterior of a patch, and the layer's output there, are an
    exact draw from their joint law, whatever the autoencoder is worth.

    Arguments:
        flow: The flow.
        embedder: The embedder.
        store: Gives the representation of any patch.
        places: Held-out patches, 8 or more.
        codes: One code of each, (N, code_dim).
        known: Codes of other patches (M, code_dim), whose Gaussian law is compared with.
        draws: Codes to draw for each patch.
        seed: Draws everything random.

    Raises:
        CtinvError: Too few patches, or values that are not finite.
    """
    chunks = [places[k : k + _CHUNK] for k in range(0, len(places), _CHUNK)]
    inputs = ((store.cut(part), store.where(part, embedder.code_size)) for part in chunks)
    contexts = torch.cat([embedder(z, where) for z, where in inputs])
    generator = torch.Generator().manual_seed(seed)
    inverse = FlowInverse(flow)

    def draw(number: int, count: int) -> Codes:
        v = torch.randn((count, flow.features), generator=generator)
        return inverse.bind(contexts[number : number + 1])(v).double().numpy()

    def log_prob(values: Codes, number: int) -> Codes:
        return flow.log_prob(torch.from_numpy(values).float(), contexts[number : number + 1]).double().numpy()

    free = None if known is None else gaussian_density(known.numpy())
    return calibrate(codes.numpy(), draw, log_prob, draws=draws, seed=seed, unconditional=free)
