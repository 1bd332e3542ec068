"""Whole slices: no bit depends on the batch, statistics are those of the samples."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data import phantom
from ctinv.invariance.data.tiling import STEP, grid
from ctinv.invariance.networks.fit_record import FitRecord
from ctinv.invariance.sampling import slices as sampling

from .toys import NARROW, SMALL, make_explainer, with_batch


def same(a, b):
    return all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(sampling.Drawn)
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_changes_no_bit(explainer, image, batch, precision):
    tile = dataclasses.replace(explainer.preset.tile, precision=precision)
    explainer = dataclasses.replace(explainer, preset=dataclasses.replace(explainer.preset, tile=tile))
    wanted = sampling.sample_slice(explainer, image, 23, 0, 3, quantiles=(0.5,))
    drawn = sampling.sample_slice(with_batch(explainer, batch), image, 23, 0, 3, quantiles=(0.5,))
    assert same(wanted, drawn)


def test_the_number_of_threads_changes_little(explainer, image):
    drawn = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(sampling.sample_slice(explainer, image, 12, 0, 2))
            with ThreadPoolExecutor(1) as later:
                assert torch.get_num_threads() == later.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(drawn[0].std, drawn[1].std, rtol=1e-4, atol=1e-3)


def test_bfloat16_changes_little(explainer, image):
    drawn = {}
    for precision in ("float32", "bfloat16"):
        tile = dataclasses.replace(explainer.preset.tile, precision=precision)
        preset = dataclasses.replace(explainer.preset, tile=tile)
        drawn[precision] = sampling.sample_slice(
            dataclasses.replace(explainer, preset=preset), image, 20, 0, 2
        )
    error = drawn["bfloat16"].samples - drawn["float32"].samples
    assert 0 < np.sqrt(np.square(error).mean()) < 0.02 * drawn["float32"].samples.std()
    np.testing.assert_allclose(drawn["bfloat16"].std.mean(), drawn["float32"].std.mean(), rtol=0.02)


def test_statistics_are_those_of_the_samples(explainer, image):
    small = image[:32, :32]  # a single tile
    drawn = sampling.sample_slice(explainer, small, 60, 1, 60, quantiles=(0.05, 0.5, 0.95))
    np.testing.assert_allclose(drawn.mean, drawn.samples.mean(0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(drawn.std, drawn.samples.std(0), rtol=1e-4)
    exact = np.quantile(drawn.samples, (0.05, 0.5, 0.95), axis=0, method="hazen")
    gap = np.sort(drawn.samples, 0)
    spacing = np.abs(np.diff(gap, axis=0)).max(0) + drawn.std / 8
    assert (np.abs(drawn.quantiles - exact) <= spacing).all()


class Normal:
    """Stands for the sampler: every pixel normal, 3 HU about 40 HU."""

    def __init__(self, *_):
        pass

    def draw(self, seed, tile, count, context, guide=None):
        generator = torch.Generator().manual_seed(1000 * seed + tile)
        yield from (40 + 3 * torch.randn(count, 32, 32, generator=generator)).split(700)


def test_quantiles_of_a_normal_law_reach_the_user(explainer, image, monkeypatch):
    """Over tiles that overlap, and cut to the image's own size."""
    monkeypatch.setattr(sampling, "Sampler", Normal)
    image = image[:45, :53]
    found = explainer.explain(image, samples=4000, refine=0, quantiles=(0.05, 0.5, 0.95), cache=False)
    assert found.quantiles.shape == (3, 45, 53)
    wanted = 40 + 3 * np.array([-1.645, 0, 1.645])
    np.testing.assert_allclose(found.quantiles.mean((1, 2)), wanted, atol=0.02)
    np.testing.assert_allclose(found.quantiles, np.ones((45, 53)) * wanted[:, None, None], atol=0.6)
    assert found.meta["quantiles"] == [0.05, 0.5, 0.95]


def test_quantiles_are_of_the_samples_as_the_flow_draws_them(explainer, image):
    small = image[:32, :32]
    shares = (0.95, 0.05)  # in the order asked for
    flow = explainer.explain(small, samples=40, keep=40, refine=0, quantiles=shares)
    exact = np.quantile(flow.samples, shares, axis=0, method="hazen")
    gap = np.abs(np.diff(np.sort(flow.samples, 0), axis=0)).max(0) + flow.std / 8
    assert (np.abs(flow.quantiles - exact) <= gap).all()
    refined = explainer.explain(small, samples=40, refine=2, quantiles=shares)
    np.testing.assert_array_equal(refined.quantiles, flow.quantiles)
    plain = explainer.explain(small, samples=40, refine=0)
    assert plain.quantiles is None
    assert "quantiles" not in plain.meta
    np.testing.assert_array_equal(plain.std, flow.std)


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 1.0), (5, 95), (float("nan"),)])
def test_quantiles_that_are_no_shares_are_refused(explainer, image, shares):
    with pytest.raises(CtinvError, match="between 0 and 1"):
        explainer.explain(image, samples=4, quantiles=shares)


def test_a_stored_answer_has_the_quantiles_asked_for(explainer, image):
    explainer = dataclasses.replace(explainer, info=FitRecord(key="with-quantiles"))
    first, again = (explainer.explain(image, samples=4, refine=0, quantiles=(0.1,)) for _ in range(2))
    np.testing.assert_array_equal(first.quantiles, again.quantiles)
    assert again.meta["quantiles"] == [0.1]
    other = explainer.explain(image, samples=4, refine=0, quantiles=(0.9,))
    assert (other.quantiles > first.quantiles).any()
    assert explainer.explain(image, samples=4, refine=0).quantiles is None


@pytest.mark.parametrize("name", ["paper", "paper2024"])
def test_vector_codes_and_conditional_decoders(name, image):
    small = SMALL | NARROW | {"flow.blocks": 1}
    explainer = make_explainer(name, {k: str(v) for k, v in small.items()})
    drawn = sampling.sample_slice(explainer, image[:, :56], 4, 0, 1)
    assert drawn.mean.shape == (56, 56)
    assert np.isfinite(drawn.samples).all()
    assert drawn.std.min() > 0


def test_no_seam_shows_in_the_spread():
    """Gradients of the std map at tile borders are like those elsewhere on the code's lattice."""
    explainer = make_explainer("small", {"fit.steps": "1"})
    x = phantom(np.random.default_rng(0), 208).hu
    overlap, p = explainer.preset.tile.overlap, explainer.preset.vae.patch
    tiles = grid(x.shape, p, overlap)
    log = np.log(sampling.sample_slice(explainer, x, 10, 0, 0).std.astype(np.float64) + 1)
    starts = sorted({column for _, column in tiles.corners})
    borders = {a - 1 for a in starts[1:]} | {a + p - 1 for a in starts[:-1]}
    for axis in (0, 1):
        gradient = np.abs(np.diff(log, axis=axis)).mean(1 - axis)
        at = np.array(sorted(borders))
        # The decoder has a lattice of 8 pixels of its own, and tiles begin on it.
        inside = np.setdiff1d(np.arange(7, len(gradient), STEP), at)
        assert 0.8 < gradient[at].mean() / gradient[inside].mean() < 1.2


def test_an_interrupted_series_goes_on_where_it_stopped(explainer, image, monkeypatch):
    from ctinv.invariance.explaining import analysis

    series = [image + 10 * k for k in range(4)]
    explainer = dataclasses.replace(explainer, info=FitRecord(key="interrupted-series"))
    drawn, sample = [], sampling.sample_slice

    def interrupted(explainer, x, *args, **options):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(x)
        return sample(explainer, x, *args, **options)

    monkeypatch.setattr(analysis, "sample_slice", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ = [explainer.explain(one, samples=3, refine=0) for one in series]
    assert len(drawn) == 2
    drawn.clear()
    monkeypatch.setattr(
        analysis, "sample_slice", lambda e, x, *a, **o: (drawn.append(x), sample(e, x, *a, **o))[1]
    )
    again = [explainer.explain(one, samples=3, refine=0) for one in series]
    assert len(drawn) == 2
    whole = [explainer.explain(one, samples=3, refine=0, cache=False) for one in series]
    for a, b in zip(again, whole, strict=True):
        np.testing.assert_array_equal(a.std, b.std)
        np.testing.assert_array_equal(a.samples, b.samples)
