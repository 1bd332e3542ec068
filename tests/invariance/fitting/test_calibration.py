"""Calibration tests: the exact conditional law passes, and each way of being wrong is found."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.fitting.calibration import LEVELS, calibrate, calibrate_flow, gaussian_density
from ctinv.invariance.infra.records import plain
from ctinv.invariance.networks.fitted import build_networks
from ctinv.invariance.presets import preset
from ctinv.invariance.representation.geometry import Geometry
from ctinv.invariance.representation.maps import coordinates

PAIRS, SIZE, NOISE = 400, 6, 0.5


def gaussian_pairs(seed, pairs):
    """Codes ``c ~ N(0, I)`` and contexts ``c + 0.5 n``: the law of a code is N(0.8 h, 0.2)."""
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((pairs, SIZE))
    return codes, codes + NOISE * rng.standard_normal(codes.shape)


def run(seed, width=1.0, shift=0.0, axis=slice(None), draws=60, unconditional=None, pairs=PAIRS):
    """A sampler and density ``width`` times as wide as the truth and ``shift`` spreads beside it."""
    codes, contexts = gaussian_pairs(seed, pairs)
    gain, spread = 1 / (1 + NOISE**2), math.sqrt(NOISE**2 / (1 + NOISE**2))
    scale, offset = np.full(SIZE, spread), np.zeros(SIZE)
    scale[axis] *= width
    offset[axis] += shift * spread
    rng = np.random.default_rng([seed, 1])

    def draw(number, count):
        return gain * contexts[number] + offset + scale * rng.standard_normal((count, SIZE))

    def log_prob(values, number):
        white = (values - gain * contexts[number] - offset) / scale
        return -0.5 * (white**2).sum(1) - np.log(scale).sum() - SIZE / 2 * math.log(2 * math.pi)

    return calibrate(codes, draw, log_prob, draws=draws, seed=seed, unconditional=unconditional)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_exact_law_passes(seed):
    found = run(seed)
    assert found.passes
    assert found.deviation < 100 * 1.63 / math.sqrt(PAIRS)  # the 1 % point of Kolmogorov's law
    assert found.error_ratio == pytest.approx(1, abs=0.05)
    assert abs(found.tarp_atc) < 0.02
    assert found.sbc_failing < 0.2
    assert found.levels == LEVELS
    assert found.directions == SIZE + 64


@pytest.mark.parametrize("pairs", [64, 128, 512])
def test_what_chance_alone_makes_of_the_deviation(pairs):
    """5 % of tests of uniform ranks find more: binomial, of 4000 tests 4 to 6 %."""
    ranks = np.random.default_rng(0).random((4000, pairs))
    off = 100 * np.abs(np.stack([(ranks <= level).mean(1) - level for level in LEVELS])).max(0)
    chance = dataclasses.replace(run(1, pairs=16, draws=4), pairs=pairs).chance
    assert np.mean(off > chance) == pytest.approx(0.05, abs=0.012)


def test_p_values_of_the_exact_law_are_uniform():
    found = [run(100 + k, draws=10, pairs=60) for k in range(40)]
    for name in ("coverage_p", "tarp_p"):
        values = np.sort([getattr(f, name) for f in found])
        apart = np.abs(values - (np.arange(40) + 0.5) / 40).max()
        assert apart < 1.63 / math.sqrt(40), name
    assert np.mean([f.passes for f in found]) > 0.9


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("too narrow", {"width": 0.7}),
        ("too wide", {"width": 1.4}),
        ("shifted", {"shift": 0.7}),
        ("one number too narrow", {"width": 0.5, "axis": 2}),
        ("one number shifted", {"shift": -0.6, "axis": 4}),
    ],
)
def test_a_wrong_law_fails(name, wrong):
    found = run(5, **wrong)
    assert not found.passes
    assert found.sbc_p < 1e-3
    assert found.nll > run(5).nll + 0.01


def test_the_figures_tell_narrow_from_wide():
    narrow, wide = run(6, width=0.6), run(6, width=1.6)
    assert narrow.error_ratio == pytest.approx(1 / 0.6, rel=0.05)
    assert wide.error_ratio == pytest.approx(1 / 1.6, rel=0.05)
    assert narrow.tarp_atc < -0.02 < 0.02 < wide.tarp_atc
    assert narrow.coverage[4] < 0.35
    assert wide.coverage[4] > 0.75
    for found in (narrow, wide):
        assert min(found.coverage_p, found.tarp_p) < 1e-3


def test_likelihoods_in_closed_form():
    prior = gaussian_density(np.random.default_rng(9).standard_normal((4000, SIZE)))
    found = run(7, unconditional=prior)
    spread = NOISE**2 / (1 + NOISE**2)
    entropy = 0.5 * math.log2(2 * math.pi * math.e)
    assert found.nll == pytest.approx(entropy + 0.5 * math.log2(spread), abs=0.05)
    assert found.nll_unconditional == pytest.approx(entropy, abs=0.05)
    # Another pair's code lies (1 + gain) / spread times as far away, squared.
    apart = (1 + 0.8) / spread
    wrong = 0.5 * (math.log2(2 * math.pi * spread) + apart * math.log2(math.e))
    assert found.nll_shuffled == pytest.approx(wrong, rel=0.1)


def test_a_gaussian_density_of_many_correlated_numbers():
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((20, 20)) / 4 + np.eye(20)
    covariance = mixing @ mixing.T
    codes = rng.standard_normal((5000, 20)) @ mixing.T + 3
    fresh = rng.standard_normal((2000, 20)) @ mixing.T + 3
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1]
    assert -gaussian_density(codes)(fresh).mean() == pytest.approx(entropy, rel=0.02)


def test_a_figure_of_a_code_with_one_number():
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((200, 1))
    found = calibrate(codes, lambda k, n: rng.standard_normal((n, 1)), lambda c, k: -0.5 * (c**2).sum(1))
    assert found.passes
    assert found.directions == 1


def test_a_blind_sampler_of_one_value_does_not_pass_by_ties():
    """All draws equal: the ranks are decided by the truth alone and lie at both ends."""
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((200, 2))
    found = calibrate(codes, lambda k, n: np.zeros((n, 2)), lambda c, k: -0.5 * (c**2).sum(1))
    assert not found.passes


def test_the_result_is_plain_json_and_the_seed_decides():
    found = run(8)
    stored = json.loads(json.dumps(plain(found)))
    assert stored["passes"] is True
    assert len(stored["coverage"]) == len(stored["levels"])
    assert run(8) == found
    assert dataclasses.replace(found, sbc_p=1e-9).passes is False


@pytest.mark.parametrize(("shape", "draws"), [((7, 3), 10), ((20,), 10), ((20, 3), 1)])
def test_too_little_is_refused(shape, draws):
    with pytest.raises(CtinvError, match="8 pairs or more"):
        calibrate(np.zeros(shape), lambda k, n: np.zeros((n, 3)), lambda c, k: np.zeros(len(c)), draws=draws)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(CtinvError, match="not finite"):
        calibrate(np.zeros((9, 2)), lambda k, n: np.full((n, 2), np.nan), lambda c, k: np.zeros(len(c)))


class Store:
    """Gives representations as a store of slices does."""

    def __init__(self, count, size):
        self.z = torch.randn(count, 2, size, size)

    def cut(self, places):
        return torch.stack([self.z[k] for k, _, _ in places])

    def where(self, places, code_size):
        return coordinates([(i, j) for _, i, j in places], [(64, 64)] * len(places), 32, code_size)

    def inputs(self, places, code_size):
        return self.cut(places), self.where(places, code_size)


def test_a_flow_on_its_own_draws_passes_and_on_wider_ones_fails():
    """Codes drawn from the flow itself are its exact law, whatever its weights are."""
    chosen = preset("tiny")
    patch = chosen.vae.patch
    store, places = Store(70, patch), [(k, 8 * (k % 5), 8 * (k % 3)) for k in range(70)]
    geometry = Geometry(True, 1.0, (0, 0), 2, (patch, patch))
    flow, embedder = build_networks(chosen, geometry, 0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in (*flow.parameters(), *embedder.parameters()):
            parameter.add_(0.05 * torch.randn_like(parameter))
        embedder.initialise(store.cut(places))
        context = embedder(store.cut(places), store.where(places, embedder.code_size))
        codes = flow.inverse(torch.randn(len(places), flow.features), context)
        wider = flow.inverse(1.3 * torch.randn(len(places), flow.features), context)
    right = calibrate_flow(flow, embedder, store, places, codes, known=codes, draws=19)
    wrong = calibrate_flow(flow, embedder, store, places, wider, draws=19)
    assert right.passes
    assert right.nll < min(wrong.nll, right.nll_shuffled)
    assert right.nll_unconditional is not None
    assert not wrong.passes
    assert wrong.coverage_p < 1e-3
    mixed = calibrate_flow(flow, embedder, store, places[::-1], codes, draws=19)
    assert mixed.nll > right.nll
