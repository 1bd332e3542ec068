"""Statistics of a slice from those of its tiles: no seam shows."""

import numpy as np
import pytest
import torch
from ctinv.invariance.data.tiling import grid
from ctinv.invariance.sampling.moments import Histogram
from ctinv.invariance.sampling.mosaic import Mosaic


def test_mosaic_of_known_laws():
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 100, (136, 136)).astype(np.float32)
    tiles = grid((136, 136), 64, 16)
    mosaic = Mosaic(tiles, 40)
    for tile in tiles:
        noise = rng.standard_normal((1500, 64, 64), dtype=np.float32)
        mosaic.add(tile, truth[tile] + 5 * noise)
    # One law in every tile: neither mean nor spread may show where tiles meet.
    assert np.abs(mosaic.mean - truth).max() < 0.9
    assert np.abs(mosaic.std - 5).max() < 0.6
    deviation = mosaic.samples - truth
    seam, inside = deviation[:, 50:62, 20:40], deviation[:, 10:40, 10:40]
    assert seam.std() == pytest.approx(inside.std(), rel=0.03)


def test_mosaic_blends_means_and_variances():
    tiles = grid((64, 120), 64, 8)
    mosaic = Mosaic(tiles, 0)
    for value, tile in zip((0.0, 10.0), tiles, strict=True):
        samples = np.stack([np.full((64, 64), value + away, np.float32) for away in (-value / 5, value / 5)])
        mosaic.add(tile, samples)
    assert mosaic.mean[5, 0] == 0
    assert mosaic.mean[5, 119] == 10
    middle = mosaic.mean[30, 60]
    # Where both say something the truth lies between; what they disagree about is no spread.
    assert 0 < middle < 10
    assert mosaic.std[30, 0] == 0
    assert mosaic.std[30, 119] == pytest.approx(2)
    assert mosaic.std[30, 60] ** 2 == pytest.approx(2**2 * middle / 10, rel=1e-3)


def test_the_order_of_tiles_changes_no_bit():
    rng = np.random.default_rng(2)
    tiles = grid((72, 136), 64, 16)
    parts = [(tile, rng.normal(50, 3, (5, 64, 64)).astype(np.float32)) for tile in tiles]
    found = []
    for order in (parts, parts[::-1], parts[3:] + parts[:3]):
        mosaic = Mosaic(tiles, 2)
        for tile, samples in order:
            mosaic.add(tile, samples)
        found.append((mosaic.mean, mosaic.std, mosaic.samples))
    for one in found[1:]:
        for a, b in zip(found[0], one, strict=True):
            np.testing.assert_array_equal(a, b)


def test_quantiles_are_those_of_the_mixture():
    rng = np.random.default_rng(3)
    tiles = grid((64, 120), 64, 8)
    mosaic = Mosaic(tiles, 0)
    drawn = {}
    for centre, tile in zip((0.0, 10.0), tiles, strict=True):
        samples = rng.normal(centre, 1, (2000, 64, 64)).astype(np.float32)
        histogram = Histogram()
        for part in torch.from_numpy(samples).split(300):
            histogram.add(part)
        drawn[centre] = samples
        mosaic.add_moments(tile, samples.mean(0), np.square(samples).mean(0), samples[:0], histogram.bins)
    low, middle, high = (mosaic.quantile(share) for share in (0.1, 0.5, 0.9))
    left = np.quantile(drawn[0.0], (0.1, 0.5, 0.9), axis=0)[:, :, :50]
    np.testing.assert_allclose(np.stack([low, middle, high])[:, :, :50], left, atol=1 / 16 + 0.02)
    # In the middle of the overlap either tile speaks for half of the law: two humps, 10 apart.
    seam = slice(59, 61)
    assert np.abs(low[:, seam] + 0.84).max() < 0.6
    assert np.abs(high[:, seam] - 10.84).max() < 0.6


def test_a_mosaic_without_tiles_or_histograms_says_so():
    mosaic = Mosaic(grid((64, 64), 64, 8), 0)
    with pytest.raises(ValueError, match="no tile"):
        _ = mosaic.mean
    mosaic.add((slice(0, 64), slice(0, 64)), np.zeros((2, 64, 64), np.float32))
    with pytest.raises(ValueError, match="histogram"):
        mosaic.quantile(0.5)
