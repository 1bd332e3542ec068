"""The natural gradient against least squares in closed form, and the weights of patches."""

from dataclasses import replace

import pytest
import torch
from ctinv.zoo.networks import Chen
from ctinv.zoo.training import RECIPES, natural
from ctinv.zoo.training.loop import _Run, initialise
from ctinv.zoo.training.natural import NaturalGradient, run_valid
from torch import nn


def faint(count, generator, size=24):
    """Images with large grey values and faint correlated detail, (N, 1, size, size)."""
    noise = torch.randn(count, 1, size + 2, size + 2, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1)
    return 0.3 + 0.1 * torch.rand(count, 1, 1, 1, generator=generator) + 0.01 * smooth


def detail(image):
    """Power of what is left of images when each one's grey value is taken out."""
    return (image - image.mean((2, 3), keepdim=True)).square().mean().item()


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_one_step_solves_least_squares(scale, monkeypatch):
    """For one convolution the metric is the Hessian, so half the gradient leads to the minimum."""
    monkeypatch.setattr(natural, "_ROWS", 200_000)  # so that the sample is as good as all patches
    generator = torch.Generator().manual_seed(0)
    x = faint(32, generator)
    truth = nn.Sequential(nn.Conv2d(1, 1, 3))
    net = nn.Sequential(nn.Conv2d(1, 1, 3))
    initialise(truth, generator, False)
    initialise(net, generator, False)
    target = run_valid(truth, x).detach()
    first = run_valid(net, x)
    before = scale**2 * (first - target).square().mean()
    before.backward()
    optimiser = NaturalGradient([net[0]], 0.5, 0.0, limit=1e9, floor=1e-6)
    optimiser.measure(net, [x] * 4, scale, generator)
    optimiser.step()
    after = scale**2 * (run_valid(net, x) - target).square().mean()
    assert after < 0.03 * before
    assert detail(run_valid(net, x) - target) < 0.1 * detail(first - target)


def test_plain_steps_get_nowhere_there():
    """The check above can fail: the steepest stable plain descent leaves most of the error."""
    generator = torch.Generator().manual_seed(0)
    x = faint(64, generator)
    truth, net = nn.Sequential(nn.Conv2d(1, 1, 3)), nn.Sequential(nn.Conv2d(1, 1, 3))
    initialise(truth, generator, False)
    initialise(net, generator, False)
    target = run_valid(truth, x).detach()
    first = run_valid(net, x).detach()
    optimiser = torch.optim.SGD(net.parameters(), 0.25)
    for _ in range(100):
        optimiser.zero_grad()
        loss = (run_valid(net, x) - target).square().mean()
        loss.backward()
        optimiser.step()
    assert detail(run_valid(net, x) - target) > 0.5 * detail(first - target)


@pytest.mark.parametrize("gain", [0.01, 10.0])
def test_units_of_hidden_layers_do_not_matter(gain):
    """Scaling a hidden layer up and the next one down changes neither the image nor the step's effect."""
    results = []
    for factor in (1.0, gain):
        generator = torch.Generator().manual_seed(1)
        net = Chen()
        initialise(net, generator, True)
        with torch.no_grad():
            net.conv3.weight *= factor
            net.conv3.bias *= factor
            net.conv5.weight /= factor
        x = faint(8, generator, size=32)
        loss = (run_valid(net, x) - x[..., 6:-6, 6:-6].mean()).square().mean()
        loss.backward()
        optimiser = NaturalGradient([net.conv1, net.conv3, net.conv5], 0.01, 0.0, 1e9, 1e-3)
        optimiser.measure(net, [x], 1.0, generator)
        optimiser.step()
        results.append(run_valid(net, x).detach())
    moved = (results[0] - x[..., 6:-6, 6:-6]).abs().max()
    assert (results[0] - results[1]).abs().max() < 0.03 * moved


def test_steps_are_limited():
    generator = torch.Generator().manual_seed(0)
    x = faint(8, generator)
    moved = []
    for limit in (1e9, 1e-3):
        net = nn.Sequential(nn.Conv2d(1, 1, 3))
        initialise(net, torch.Generator().manual_seed(3), False)
        old = net[0].weight.detach().clone()
        run_valid(net, x).square().mean().backward()
        optimiser = NaturalGradient([net[0]], 1.0, 0.0, limit, 1e-3)
        optimiser.measure(net, [x], 1.0, torch.Generator().manual_seed(4))
        optimiser.step()
        moved.append((net[0].weight.detach() - old).flatten())
    assert moved[1].norm() < 0.1 * moved[0].norm()
    torch.testing.assert_close(moved[1] / moved[1].norm(), moved[0] / moved[0].norm())


@pytest.mark.parametrize(("balance", "ratio"), [(0.0, 1.0), (0.5, 2.0), (1.0, 4.0)])
def test_balance_weighs_quiet_patches_up(balance, ratio):
    recipe = replace(RECIPES["chen"], balance=balance)
    run = _Run(Chen(), recipe, 1, 0, None)
    full = torch.zeros(2, 1, 8, 8)
    low = torch.full((2, 1, 8 + 2 * run.margin, 8 + 2 * run.margin), 900.0)
    inner = slice(run.margin, -run.margin)
    low[0, :, inner, inner], low[1, :, inner, inner] = 20.0, 40.0
    weights = run._weights(low, full)
    assert weights.shape == (2, 1, 1, 1)
    assert (weights[0] / weights[1]).item() == pytest.approx(ratio)
    assert torch.isfinite(run._weights(torch.zeros_like(low), full)).all()
