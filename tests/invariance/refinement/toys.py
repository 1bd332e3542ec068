"""Layers made of a function, and how they look at an image."""

from types import SimpleNamespace

import numpy as np
import torch
from ctinv import adapters
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.sight import Sight
from torch import nn

SIZE = 24


def plain(channels):
    """Channel statistics that change nothing."""
    return SimpleNamespace(mean=torch.zeros(channels, 1, 1), std=torch.ones(channels, 1, 1))


def layer(function, channels=1):
    """A function of images as the layer ``phi`` of a denoiser, and its observer without standardisation."""

    class Phi(nn.Module):
        def forward(self, x):
            return function(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.phi = Phi()

        def forward(self, x):
            self.phi(x)
            return x

    denoiser = adapters.wrap(Net(), intensity="hu")
    return Observer(denoiser, "phi", plain(channels))


def draw(seed, count=3, size=SIZE):
    """Images (count, size, size) of noise of 30 HU."""
    return np.random.default_rng(seed).standard_normal((count, size, size)).astype(np.float32) * 30


def half(x):
    """Forgets the left half."""
    seen = torch.zeros(x.shape[-1])
    seen[x.shape[-1] // 2 :] = 1
    return x * seen


def sight(function, channels=1, *, size=SIZE, seed=0):
    """A function of images that looks at one image with noise of 10 HU."""
    observer, x, noise = layer(function, channels), draw(seed, 1, size)[0], draw(seed + 2, 3, size) / 3
    return Sight(observer, x, noise, (size, size))
