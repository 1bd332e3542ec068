"""Calibration: whether the codes that a flow draws are distributed as those that belong to ``z``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, generator, rng
from ctinv.invariance.networks.fit_record import Calibration
from ctinv.invariance.sampling.inverse import FlowInverse
from torch import Tensor

if TYPE_CHECKING:
    from ctinv.invariance.networks.embedder import Embedder
    from ctinv.invariance.networks.flow import ConditionalFlow

    from .patches import Place
    from .stores import RepresentationStore

__all__ = [
    "LEVELS",
    "calibrate",
    "calibrate_flow",
    "coverage_ranks",
    "gaussian_density",
    "sbc_ranks",
    "tarp_ranks",
]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels of the highest-density regions."""

Codes = npt.NDArray[np.float64]
Draw = Callable[[int, int], Codes]
LogProb = Callable[[Codes, int], Codes]

_PROJECTIONS = 64
_CHUNK = 64


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

    The package ``sbi`` holds the same tests, bound to its own posterior classes, and would bring some
    ten further packages along for them.

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
    numbers = rng(seed, Purpose.CALIBRATION_TESTS)
    count, size = truth.shape
    drawn = np.stack([np.asarray(draw(k, draws), dtype=np.float64) for k in range(count)])
    if not np.isfinite(drawn).all():
        raise CtinvError("the flow draws codes that are not finite; fit again")
    # Of the draws alone: a scale that knew the true codes would bring these nearer than draws can be.
    scale = np.maximum(drawn.reshape(-1, size).std(0), 1e-12)
    # One cycle through all pairs: with shorter ones, pairs would share their random points.
    cycle = numbers.permutation(count)
    others = np.empty(count, dtype=int)
    others[cycle] = np.roll(cycle, 1)
    random = numbers.standard_normal((size, _PROJECTIONS if size > 1 else 0)) / scale[:, None]
    ties = numbers.random((count, 2 + size + random.shape[1]))
    pairs = np.concatenate([truth[:, None], drawn], 1)
    logs = _log_densities(pairs, truth[others], log_prob)
    density = coverage_ranks(logs[:, :-1], ties[:, 0])
    distance = tarp_ranks(pairs, truth[others], scale, ties[:, 1])
    sbc = _uniform(sbc_ranks(pairs, random, ties[:, 2:]))
    coverage = tuple(float(np.mean(density <= level)) for level in LEVELS)
    coverage_p, tarp_p = (float(_uniform(ranks[:, None])[0]) for ranks in (density, distance))
    sbc_p = float(min(1.0, sbc.min() * len(sbc)))
    unit = -1 / (size * math.log(2))
    return Calibration(
        pairs=count,
        draws=draws,
        levels=LEVELS,
        coverage=coverage,
        deviation=100 * max(abs(c - level) for c, level in zip(coverage, LEVELS, strict=True)),
        coverage_p=coverage_p,
        sbc_p=sbc_p,
        sbc_failing=float(np.mean(sbc < 0.05)),
        directions=len(sbc),
        # The integral of (share of levels below a) - a, for a from 1/2 to 1.
        tarp_atc=float(np.mean(1 - np.maximum(distance, 0.5))) - 0.375,
        tarp_p=tarp_p,
        error_ratio=_error_ratio(truth, drawn),
        nll=float(logs[:, 0].mean()) * unit,
        nll_shuffled=float(logs[:, -1].mean()) * unit,
        nll_unconditional=None if unconditional is None else float(np.mean(unconditional(truth))) * unit,
    )


def coverage_ranks(logs: Codes, ties: Codes) -> Codes:
    """Rank of each true code's density among those of its draws: expected coverage of dense regions.

    Source: Hermans, Delaunoy, Rozet, Wehenkel, Begy, Louppe, A crisis in simulation-based inference?
    Beware, your posterior approximations can be unfaithful, TMLR 2022,
    https://openreview.net/forum?id=LHAbHkt6Aq

    Arguments:
        logs: Log-densities of each true code and then of its draws, (N, 1 + draws).
        ties: Uniform numbers that break ties, (N,).

    Returns:
        Uniform numbers between 0 and 1 where codes and draws follow one law, (N,); small where the true
        code is among the densest.
    """
    return _ranks(-logs[..., None], ties[:, None])[:, 0]


def sbc_ranks(pairs: Codes, directions: Codes, ties: Codes) -> Codes:
    """Rank of each true code among its draws, number by number and along directions.

    Source: Talts, Betancourt, Simpson, Vehtari, Gelman, Validating Bayesian inference algorithms with
    simulation-based calibration, 2018, https://arxiv.org/abs/1804.06788

    Arguments:
        pairs: Each true code and then its draws, (N, 1 + draws, D).
        directions: Further directions, (D, K).
        ties: Uniform numbers that break ties, (N, D + K).

    Returns:
        Uniform numbers between 0 and 1 where codes and draws follow one law, (N, D + K).
    """
    return _ranks(np.concatenate([pairs, pairs @ directions], -1), ties)


def tarp_ranks(pairs: Codes, references: Codes, scale: Codes, ties: Codes) -> Codes:
    """Rank of each true code's distance from a random point among those of its draws.

    Source: Lemos, Coogan, Hezaveh, Perreault-Levasseur, Sampling-based accuracy testing of posterior
    estimators for general inference, ICML 2023, https://arxiv.org/abs/2302.03026

    Arguments:
        pairs: Each true code and then its draws, (N, 1 + draws, D).
        references: The random points, (N, D).
        scale: What each number of the difference is divided by, (D,).
        ties: Uniform numbers that break ties, (N,).

    Returns:
        Uniform numbers between 0 and 1 where codes and draws follow one law, (N,).
    """
    away = np.square((pairs - references[:, None]) / scale).sum(-1)
    return _ranks(away[..., None], ties[:, None])[:, 0]


def _log_densities(pairs: Codes, others: Codes, log_prob: LogProb) -> Codes:
    """Of each true code, its draws, and another pair's code, all in the true code's context."""
    codes = np.concatenate([pairs, others[:, None]], 1)
    logs = np.stack([np.asarray(log_prob(each, k), dtype=np.float64) for k, each in enumerate(codes)])
    if not np.isfinite(logs).all():
        raise CtinvError("the flow gives codes densities that are not finite; fit again")
    return logs


def _error_ratio(truth: Codes, drawn: Codes) -> float:
    error = np.square(truth - drawn.mean(1)).sum(0)
    spread = ((1 + 1 / drawn.shape[1]) * drawn.var(1, ddof=1)).sum(0)
    return float(np.sqrt((error / np.maximum(spread, 1e-300)).mean()))


def _ranks(values: Codes, ties: Codes) -> Codes:
    """Of the first of (N, 1 + draws, K) among all, from 0 to 1: uniform where all follow one law, (N, K)."""
    first, rest = values[:, :1], values[:, 1:]
    below, equal = (rest < first).sum(1), (rest == first).sum(1)
    ranks: Codes = (below + ties * (equal + 1)) / values.shape[1]
    return ranks


def _uniform(ranks: Codes) -> Codes:
    """p-value of each column of (N, K) as uniform numbers, by Kolmogorov and Smirnov."""
    from scipy.stats import ks_1samp

    test = ks_1samp(ranks, lambda level: level, method="exact")
    return np.asarray(test.pvalue, dtype=np.float64)


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
    draws: int = 32,
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
    contexts = torch.cat([embedder(*store.inputs(part, embedder.code_size)) for part in chunks])
    numbers = generator(seed, Purpose.CALIBRATION_DRAWS)
    inverse = FlowInverse(flow)

    def draw(number: int, count: int) -> Codes:
        v = torch.randn((count, flow.features), generator=numbers)
        return inverse.bind(contexts[number : number + 1])(v).double().numpy()

    def log_prob(values: Codes, number: int) -> Codes:
        return flow.log_prob(torch.from_numpy(values).float(), contexts[number : number + 1]).double().numpy()

    free = None if known is None else gaussian_density(known.numpy())
    return calibrate(codes.numpy(), draw, log_prob, draws=draws, seed=seed, unconditional=free)
