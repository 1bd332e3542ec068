"""What the layer's output is measured in: zero mean and unit spread, channel by channel."""

import pytest
import torch
from ctinv.invariance.refinement.observer import Standard


def test_each_channel_is_standardised_by_its_own_statistics():
    spread, mean = (torch.tensor(v).view(1, 2, 1, 1) for v in ([2.0, 50.0], [-7.0, 300.0]))
    z = mean + spread * torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    known = Standard.of(z)
    assert known.mean.shape == known.std.shape == (2, 1, 1)
    fresh = (z - known.mean) / known.std
    for channel in range(2):
        assert fresh[:, channel].mean().item() == pytest.approx(0, abs=1e-4)
        assert fresh[:, channel].std().item() == pytest.approx(1, abs=1e-4)


def test_a_channel_that_never_changes_tells_nothing():
    z = torch.randn(2, 2, 4, 4)
    z[:, 1] = 3.0
    known = Standard.of(z)
    assert torch.isinf(known.std[1]).all()
    assert torch.isfinite(known.std[0]).all()


def test_a_single_number_is_left_as_it_is():
    known = Standard.of(torch.full((1, 1), 5.0))
    assert (known.mean.item(), known.std.item()) == (0.0, 1.0)
