"""Learning rate and the optimiser's state as tensors."""

import math

import pytest
import torch
from ctinv.invariance.infra.training import (
    learning_rate,
    optimiser_tensors,
    restore_optimiser,
    state_fits,
)
from torch import nn


@pytest.mark.parametrize("last", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("warmup", [1, 10])
def test_rate_rises_then_falls_to_what_is_left(last, warmup):
    rates = [learning_rate(step, 200, last, warmup) for step in range(201)]
    assert rates[0] == pytest.approx(1 / warmup)
    assert rates[100] == pytest.approx((1 + last) / 2)
    assert rates[200] == pytest.approx(last)
    assert rates[50] == pytest.approx(last + (1 - last) * (1 + math.sqrt(0.5)) / 2)
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def trained(layout, fused, steps=3):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3)).to(memory_format=layout)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2, fused=fused)
    for _ in range(steps):
        advance(net, optimiser)
    return net, optimiser


def advance(net, optimiser):
    optimiser.zero_grad()
    x = torch.arange(2 * 2 * 64, dtype=torch.float32).reshape(2, 2, 8, 8).sin()
    net(x).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("fused", [False, True])
def test_what_is_restored_goes_on_bit_by_bit(layout, fused):
    net, optimiser = trained(layout, fused)
    tensors = {name: value.clone().contiguous() for name, value in optimiser_tensors(optimiser).items()}
    other, fresh = trained(layout, fused, 0)
    other.load_state_dict(net.state_dict())
    assert state_fits(fresh, tensors)
    restore_optimiser(fresh, tensors)
    for p in other.parameters():
        assert fresh.state[p]["exp_avg"].stride() == p.stride()
    advance(net, optimiser)
    advance(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.pop("0.step"),
        lambda t: t.pop("2.exp_avg"),
        lambda t: t.update({"0.exp_avg": torch.zeros(3)}),
        lambda t: t.update({"1.velocity": torch.zeros(4)}),
        lambda t: t.update({f"4.{name}": torch.zeros(()) for name in ("step", "exp_avg", "exp_avg_sq")}),
    ],
)
def test_a_state_of_other_parameters_is_told(spoil):
    _, optimiser = trained(torch.contiguous_format, False)
    tensors = optimiser_tensors(optimiser)
    assert state_fits(optimiser, tensors)
    spoil(tensors)
    assert not state_fits(optimiser, tensors)


def test_no_state_is_the_state_of_one_that_has_not_begun():
    _, optimiser = trained(torch.contiguous_format, False, 0)
    assert optimiser_tensors(optimiser) == {}
    assert state_fits(optimiser, {})
