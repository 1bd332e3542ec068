"""Mean, spread and quantiles of samples that come in portions."""

import numpy as np
import pytest
import torch
from ctinv.invariance.sampling.moments import BINS, Histogram, Moments


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
