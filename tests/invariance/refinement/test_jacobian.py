"""Convolutions without weight gradients: the same values and derivatives as PyTorch's own."""

import numpy as np
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.invariance.refinement.jacobian import FixedConvolutions, Linearised
from ctinv.invariance.representation.reader import Looker
from torch import nn
from torch.nn import functional as F

SETTINGS = [
    {},
    {"padding": 1},
    {"padding": (1, 0)},
    {"stride": 2, "padding": 1},
    {"stride": (1, 3)},
    {"dilation": 2, "padding": 2},
    {"dilation": (1, 2), "stride": (2, 1), "padding": (0, 2)},
    {"groups": 2},
    {"padding": "same"},
    {"padding": [1]},
]


def both(function, x):
    """Value, ``J d`` and ``J^T u`` with and without the mode."""
    torch.manual_seed(1)
    d = torch.randn_like(x)
    found = []
    for mode in (True, False):
        image = x.clone().requires_grad_()
        if mode:
            with FixedConvolutions():
                z = function(image)
        else:
            z = function(image)
        u = torch.randn(z.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype).requires_grad_()
        (back,) = torch.autograd.grad(z, image, u, create_graph=True)
        (forward,) = torch.autograd.grad(back, u, d)
        found.append((z.detach(), back.detach(), forward))
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_derivatives_are_pytorchs(settings, bias):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 11, dtype=torch.float64)
    weight = torch.randn(6, 4 // settings.get("groups", 1), 3, 3, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(6, dtype=torch.float64, requires_grad=True) if bias else None
    for a, b in zip(*both(lambda image: F.conv2d(image, weight, shift, **settings), x), strict=True):
        torch.testing.assert_close(a, b)


def test_no_work_is_done_for_weights(monkeypatch):
    weight = torch.randn(4, 1, 3, 3, requires_grad=True)
    jacobian = Linearised(lambda x: F.conv2d(x, weight).relu(), torch.randn(1, 1, 9, 9))
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        jacobian.forward(torch.randn(1, 1, 9, 9))
        jacobian.adjoint(torch.randn(1, 4, 7, 7))
    assert sum("convolution" in name for name in seen) == 2
    assert weight.grad is None


def test_weights_that_depend_on_the_image_keep_their_derivative():
    def dynamic(x):
        return F.conv2d(x, x.mean() * torch.ones(1, 1, 3, 3, dtype=x.dtype))

    x = torch.randn(1, 1, 6, 6, dtype=torch.float64) + 1
    for a, b in zip(*both(dynamic, x), strict=True):
        torch.testing.assert_close(a, b)


def test_calls_by_name_and_unbatched_images():
    weight = torch.randn(2, 1, 3, 3)
    image = torch.randn(1, 6, 6, requires_grad=True)
    with FixedConvolutions():
        named = F.conv2d(input=image[None], weight=weight, bias=None, padding=1)
        single = F.conv2d(image, weight, padding=1)
    torch.testing.assert_close(named[0], single)


# -- the layout


@pytest.mark.parametrize("name", ["chen", "yang"])
def test_the_layout_changes_no_value(name):
    denoiser = zoo.load(name)
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (2, 1, 40, 48)).astype(np.float32))
    look = Looker(denoiser)
    for layer in denoiser.layers:
        torch.testing.assert_close(
            look(x, layer.name), denoiser.features(x, layer.name), rtol=1e-4, atol=1e-5
        )
    assert look(x, denoiser.layers[0].name).is_contiguous(memory_format=torch.channels_last)


def test_a_network_that_wants_the_usual_layout_gets_it():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x).view(len(x), 4, -1).view(len(x), 4, *x.shape[2:]).mean(1, keepdim=True)

    denoiser = adapters.wrap(Flat(), intensity="hu")
    x = torch.randn(1, 1, 16, 16)
    look = Looker(denoiser)
    for _ in range(2):
        torch.testing.assert_close(look(x, "@output"), denoiser.features(x, "@output"))
