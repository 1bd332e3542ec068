"""Mean, spread and quantiles of samples that come in portions."""

import numpy as np
import pytest
import torch
from ctinv.invariance.sampling.moments import BINS, Bins, Histogram, Moments


@pytest.mark.parametrize("portions", [[40], [1] * 40, [7, 13, 20]], ids=str)
def test_moments_in_portions(portions):
    x = 1e4 + np.random.default_rng(0).normal(0, 0.01, (40, 3, 5))
    moments = Moments()
    for part in np.split(x, np.cumsum(portions)[:-1]):
        moments.add(torch.from_numpy(part))
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.square - moments.mean**2, x.var(0), rtol=1e-3)


@pytest.mark.parametrize("count", [3, 50, 400])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_quantile_is_off_by_one_bin_at_most(count, share):
    x = np.random.default_rng(1).normal(0, 1, (count, 8, 8)) * np.geomspace(0.01, 100, 8) + 50
    histogram = Histogram()
    for part in np.array_split(x, 9):
        histogram.add(torch.from_numpy(part))
    bins = histogram.bins
    low, high = (np.quantile(x, share, axis=0, method=m) for m in ("lower", "higher"))
    assert bins.below.shape == (BINS + 1, 8, 8)
    # The exact quantile lies between two samples; one bin away the shares must enclose the one asked for.
    assert (bins.share(low - bins.step) <= share + 1 / count).all()
    assert (bins.share(high + bins.step) >= share - 1 / count).all()
    assert np.median(bins.step / x.std(0)) == pytest.approx(1 / 16, rel=0.5)


def test_a_pixel_that_never_changes_has_its_value_as_quantile():
    histogram = Histogram()
    histogram.add(torch.full((60, 2, 2), -1000.0))
    bins = histogram.bins
    assert bins.share(np.full((2, 2), -1000.1)).max() == 0
    assert bins.share(np.full((2, 2), -999.9)).min() == 1


@pytest.mark.parametrize("portions", [[50], [30, 30, 30], [7] * 12, [90]], ids=str)
def test_the_first_fifty_samples_decide_where_the_bins_lie(portions):
    x = np.random.default_rng(2).normal(5, [1.0, 20.0], (sum(portions), 1, 2))
    x[60:] += 1000.0
    histogram = Histogram()
    for part in np.split(x, np.cumsum(portions)[:-1]):
        histogram.add(torch.from_numpy(part))
    bins, first = histogram.bins, x[:50]
    np.testing.assert_allclose(bins.low, first.mean(0) - 4 * first.std(0), rtol=1e-6)
    np.testing.assert_allclose(bins.step, first.std(0) / 16, rtol=1e-6)
    assert (bins.below[0] == 0).all()
    assert (bins.below[-1] == len(x)).all()
    edges = bins.low + bins.step * np.arange(1, BINS)[:, None, None]
    counted = (x[:, None] < edges).sum(0)
    assert np.abs(bins.below[1:-1].astype(int) - counted).max() <= 1  # rounding at an edge
    # What came later, far out, is in the last bin.
    assert (bins.below[-1] - bins.below[-2].astype(int) >= max(0, len(x) - 60)).all()


def test_few_samples_have_bins_as_well():
    x = np.random.default_rng(3).normal(0, 1, (7, 2, 2))
    histogram = Histogram()
    histogram.add(torch.from_numpy(x))
    np.testing.assert_allclose(histogram.bins.low, x.mean(0) - 4 * x.std(0), rtol=1e-6)
    assert (histogram.bins.below[-1] == 7).all()


@pytest.mark.parametrize(("count", "kind"), [(2**16 - 1, np.uint16), (2**16, np.uint32)])
def test_counts_take_as_few_bytes_as_they_need(count, kind):
    histogram = Histogram()
    histogram.add(torch.arange(float(count))[:, None, None])
    assert histogram.bins.below.dtype == kind
    assert histogram.bins.below[-1] == count


def test_the_share_below_a_value_is_linear_within_a_bin():
    below = np.zeros((BINS + 1, 1, 1), np.uint16)
    below[1], below[2:] = 3, 10
    bins = Bins(np.full((1, 1), 2.0, np.float32), np.full((1, 1), 0.5, np.float32), below)
    for value, share in ((1.0, 0), (2.0, 0), (2.25, 0.15), (2.5, 0.3), (2.75, 0.65), (3.0, 1), (1e9, 1)):
        assert bins.share(np.full((1, 1), value)) == pytest.approx(share)


def test_no_samples_have_no_mean():
    with pytest.raises(ValueError, match="no samples"):
        _ = Moments().mean
    with pytest.raises(ValueError, match="no samples"):
        _ = Moments().square
