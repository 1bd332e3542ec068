"""Layers whose channels come last, in modules and in their exports: the same values, and told."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.invariance.representation.reader import represent
from torch import nn

UNITS = "unit:-1024:3072"


class Block(nn.Module):
    """As in ConvNeXt."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm, self.wide = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.act, self.narrow = nn.GELU(), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        h = self.narrow(self.act(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + (self.gamma * h).permute(0, 3, 1, 2)


class Turned(nn.LayerNorm):
    """As in NAFNet and its variants: channels are turned to the end and back."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Net(nn.Module):
    def __init__(self, width, stride):
        super().__init__()
        self.stem = nn.Conv2d(1, width, stride, stride)
        self.first, self.turned, self.second = Block(width), Turned(width), Block(width)
        self.out = nn.ConvTranspose2d(width, 1, stride, stride)

    def forward(self, x):
        return x - 0.1 * self.out(self.second(self.turned(self.first(self.stem(x)))))


def made(width, stride):
    torch.manual_seed(0)
    net = Net(width, stride).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net


def hooked(net, x):
    seen = {}
    hooks = [
        part.register_forward_hook(lambda _m, _a, z, name=name: seen.update({name: z.numpy()}))
        for name, part in net.named_modules()
        if name
    ]
    with torch.no_grad():
        net(torch.from_numpy((x + 1024) / 4096))
    for hook in hooks:
        hook.remove()
    return seen


LAST = [f"{block}.{part}" for block in ("first", "second") for part in ("norm", "wide", "act", "narrow")]
WIDTHS = [(6, 2), (8, 8)]  # the second: as many channels as rows and columns of a probe's map


@pytest.mark.parametrize(("width", "stride"), WIDTHS)
@pytest.mark.parametrize("kind", ["module", "legacy", "dynamo"])
def test_layers_are_read_as_the_network_has_them(exported, open_onnx, kind, width, stride):
    net = made(width, stride)
    if kind == "module":
        denoiser = adapters.wrap(net, intensity=UNITS, output="image")
    else:
        path = exported(net, f"last{width}", kind, (1, 1, 64, 48))
        denoiser = open_onnx(path, intensity=adapters.parse_intensity(UNITS), output="image")
    x = np.random.default_rng(0).normal(0, 200, (2, 1, 64, 48)).astype(np.float32)
    seen = hooked(net, x)
    for name, want in seen.items():
        layer = denoiser.resolve(name)
        z = denoiser.features(x, name)
        np.testing.assert_allclose(z, want, atol=2e-4, err_msg=name)
        assert layer.channels_last == (name in LAST), name
        assert ("channels come last" in layer.note) == (name in LAST), name
        first = represent(denoiser, name, x).numpy()
        np.testing.assert_allclose(
            first, np.moveaxis(want, -1, 1) if name in LAST else want, atol=2e-4, err_msg=name
        )


@pytest.mark.parametrize("kind", ["legacy", "dynamo"])
def test_twins_have_them_too(exported, open_onnx, kind):
    path = exported(made(6, 2), "last6", kind, (1, 1, 64, 48))
    denoiser = open_onnx(path, intensity=adapters.parse_intensity(UNITS), output="image")
    twin, name = denoiser.twin("first.norm")
    x = np.random.default_rng(0).normal(0, 200, (1, 1, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(twin.features(x, name), denoiser.features(x, "first.norm"), atol=2e-4)
    assert twin.resolve(name).channels_last


def test_windows_as_many_as_their_tokens_are_no_map():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.out = nn.Conv2d(1, 5, 1), nn.LayerNorm(5), nn.Conv2d(5, 1, 1)

        def forward(self, x):
            h = self.conv(x).unflatten(3, (-1, 8)).unflatten(2, (-1, 8))  # N C h 8 w 8
            h = h.permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
            shape = h.shape
            h = self.norm(h.flatten(1, 2)).view(shape).unflatten(3, (8, 8)).permute(0, 5, 1, 3, 2, 4)
            return x - self.out(h.flatten(4, 5).flatten(2, 3))

    denoiser = adapters.wrap(Windows(), intensity=UNITS, output="image")
    assert denoiser.resolve("norm").shape == (64, 64, 5)
    assert not denoiser.resolve("norm").channels_last
