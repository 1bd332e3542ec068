"""Novelty: slices like the fitting data pass, other images do not, and few slices widen the limit."""

import dataclasses
import json

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data import phantom
from ctinv.invariance.data.tiling import grid
from ctinv.invariance.fitting.novelty import FEATURES, NoveltyTest, fit_novelty_test
from ctinv.invariance.infra.records import plain, read
from ctinv.invariance.networks.pretrained import shipped_vae
from ctinv.invariance.presets import preset
from ctinv.invariance.sampling.slices import reconstruct
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2

SIZE = 128


def noisy(seed, level):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE)), 0.7)
    clean = phantom(np.random.default_rng(seed), SIZE).hu
    return (clean + level * noise / noise.std()).astype(np.float32)


@pytest.fixture(scope="module")
def vae():
    return shipped_vae(preset("tiny").vae)


@pytest.fixture(scope="module")
def novelty(vae):
    levels = np.random.default_rng(0).uniform(10, 40, 16)
    return fit_novelty_test(vae, [noisy(k, level) for k, level in enumerate(levels)])


@pytest.fixture
def score(vae, novelty):
    def scored(x):
        x = np.ascontiguousarray(x, dtype=np.float32)
        return novelty.score(x, reconstruct(vae, x, grid(x.shape, novelty.patch, 8)))

    return scored


def test_slices_like_the_fitting_data_pass(score):
    found = [score(noisy(1000 + k, 25)) for k in range(10)]
    assert sum(f.familiar for f in found) >= 9
    assert 0.5 < np.median([f.value for f in found]) < 2


def magnetic_resonance(x):
    """Air dark, fat bright, bone dark, in arbitrary units."""
    return np.interp(x, [-1000, -500, -100, 40, 200, 600, 2000], [0, 60, 900, 450, 700, 120, 20])


UNLIKE = {
    "upside down": lambda x: -x,
    "upside down about its own range": lambda x: x.max() + x.min() - x,
    "stored values": lambda x: x + 1024,
    "magnetic resonance": magnetic_resonance,
    "scaled to one": lambda x: (x + 1000) / 2000,
    "noise alone": lambda x: np.random.default_rng(0).normal(0, 300, x.shape),
    "nothing": np.zeros_like,
}


@pytest.mark.parametrize("name", UNLIKE)
def test_other_images_do_not_pass(score, name):
    for seed in range(4):
        found = score(UNLIKE[name](noisy(1000 + seed, 25)))
        assert not found.familiar
        assert found.odd in FEATURES


def test_ten_times_the_noise_does_not_pass_and_is_named(score):
    for seed in range(4):
        found = score(noisy(1000 + seed, 250))
        assert not found.familiar
        assert found.odd in ("noise", "error")
        assert found.away > 3


def test_distances_are_counted_in_the_tiles_own_spread(novelty):
    """Squared distances of white features have the chi-squared law: their median is near their number."""
    assert np.exp(novelty.centre) == pytest.approx(chi2.median(len(FEATURES)), rel=0.3)


def test_the_description_survives_json(novelty):
    stored = json.loads(json.dumps(plain(novelty)))
    assert read(NoveltyTest, stored, exact=True) == novelty
    assert len(json.dumps(stored)) < 4000
    with pytest.raises(TypeError, match="surplus"):
        read(NoveltyTest, {**stored, "surplus": 1}, exact=True)


@pytest.mark.parametrize("slices", [4, 12])
def test_one_in_a_hundred_fails(slices):
    """Slices of one law, drawn without an image model: features that differ from slice to slice."""
    rng = np.random.default_rng(slices)

    def pair():
        level, noise, error = 50 * rng.normal(), np.exp(0.2 * rng.normal()), np.exp(0.2 * rng.normal())
        x = level + 30 * noise * rng.normal(size=(64, 64))
        return x.astype(np.float32), (x + 20 * error * rng.normal(size=x.shape)).astype(np.float32)

    passed = []
    for _ in range(30):
        novelty = NoveltyTest.fit([pair() for _ in range(slices)], 16)
        passed += [novelty.score(*pair()).familiar for _ in range(10)]
    assert np.mean(passed) > 0.96


def test_fewer_slices_make_the_limit_wider(novelty):
    few = dataclasses.replace(novelty, slices=3)
    pair = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
    assert few.score(*pair).limit > novelty.score(*pair).limit


def test_too_little_is_refused(novelty):
    small = np.zeros((8, 8), np.float32)
    with pytest.raises(CtinvError, match="two or more"):
        NoveltyTest.fit([(small, small)], 8)
    with pytest.raises(CtinvError, match="pad it"):
        novelty.score(small, small)
