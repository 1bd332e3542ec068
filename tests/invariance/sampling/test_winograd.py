"""Convolutions by fewer products are convolutions."""

import pytest
import torch
from ctinv.invariance.sampling.winograd import MinimalConv, MinimalUpConv
from torch.nn import functional as F


@pytest.mark.parametrize("size", [(4, 4), (2, 6), (8, 2), (5, 9)], ids=str)
@pytest.mark.parametrize("rows", [2, 512])
def test_convolutions_by_fewer_products_are_the_same(size, rows, monkeypatch):
    monkeypatch.setattr("ctinv.invariance.sampling.winograd._ROWS", rows)
    monkeypatch.setattr("ctinv.invariance.sampling.winograd._PIXELS", rows)
    x, bias = torch.randn(3, 5, *size), torch.randn(7)
    weight = torch.randn(7, 5, 3, 3)
    last = x.permute(0, 2, 3, 1).contiguous()
    found = MinimalConv(weight, bias)(last).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), rtol=1e-4, atol=1e-4)
    bare = MinimalConv(weight, None)(last).permute(0, 3, 1, 2)
    torch.testing.assert_close(bare, F.conv2d(x, weight, padding=1), rtol=1e-4, atol=1e-4)
    found = MinimalUpConv(weight, bias)(last).permute(0, 3, 1, 2)
    wanted = F.conv2d(F.interpolate(x, scale_factor=2), weight, bias, padding=1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
