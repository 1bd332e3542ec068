"""Networks of one fixed size on larger images: in tiles, exactly, or refused."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import ModelError, UnsupportedModelError
from ctinv.adapters.tiles import Tiler, stride_within
from torch import nn

from .laws import image

SIZE = 48


class Fixed(nn.Module):
    """A network that takes one size, or with size 0 any; strided inside."""

    def __init__(self, size):
        super().__init__()
        torch.manual_seed(0)
        self.size = size
        self.down, self.mid = nn.Conv2d(1, 4, 4, stride=4), nn.Conv2d(4, 4, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(4, 4, 4, stride=4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        if self.size and x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"this network takes {self.size}x{self.size}")
        return x - self.last(self.up(torch.relu(self.mid(self.down(x)))))


class Placed(Fixed):
    """The same with a learned map, so that each place of the image is another."""

    def __init__(self, size):
        super().__init__(size)
        self.map = nn.Parameter(torch.linspace(0, 1, size * size).reshape(1, 1, size, size))

    def forward(self, x):
        return super().forward(x) + self.map


class Global(Fixed):
    """The same, with the mean of the whole image."""

    def forward(self, x):
        return super().forward(x) + x.mean((2, 3), keepdim=True)


class Flat(Fixed):
    """The same, beside a layer that does not lie over the image."""

    def __init__(self, size):
        super().__init__(size)
        self.vector = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        y = super().forward(x)
        self.vector(y)
        return y


def wrap(module):
    return adapters.wrap(module.eval(), intensity="unit:-1024:3072")


@pytest.mark.parametrize("size", [(48, 48), (100, 64), (96, 52), (50, 49)])
def test_law_tiles_give_what_the_whole_gives(size):
    tiled, free, x = wrap(Fixed(SIZE)), wrap(Fixed(0)), image(2, *size)
    pads = [-side % 4 for side in size]
    padded = np.pad(x, ((0, 0), (0, 0), (0, pads[0]), (0, pads[1])), mode="reflect")
    names = ["down", "mid", "up", "last"]
    found, right = tiled.features(x, names), free.features(padded, names)
    for name in names:
        np.testing.assert_allclose(found[name], right[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        tiled.denoise(x), free.denoise(padded)[..., : size[0], : size[1]], atol=1e-2
    )  # HU
    assert any("tiles" in notice for notice in tiled.notices) == (size != (48, 48))


def test_gradients_pass_through_tiles():
    tiled, free = wrap(Fixed(SIZE)), wrap(Fixed(0))
    grads = []
    for denoiser in (tiled, free):
        x = torch.from_numpy(image(1, 64, 80)).requires_grad_()
        denoiser.features(x, ["mid", OUTPUT], grad=True)["mid"].square().sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-4)


def test_the_size_given_is_no_tile():
    denoiser = wrap(Fixed(52))  # 52, which is on no list
    assert denoiser.features(image(1, 52, 52), "mid").shape == (1, 4, 13, 13)
    assert not any("tiles" in notice for notice in denoiser.notices)
    assert denoiser.features(image(1, 104, 60), "mid").shape == (1, 4, 26, 15)


def test_smaller_images_are_refused_in_the_network_s_own_words():
    with pytest.raises(ModelError, match="takes 48x48"):
        wrap(Fixed(SIZE)).denoise(image(1, 40, 96))


@pytest.mark.parametrize(("net", "why"), [(Placed, "tiles disagree"), (Global, "whole image")])
def test_what_no_tile_can_tell_is_refused(net, why):
    denoiser = wrap(net(SIZE))
    assert denoiser.denoise(image(1, SIZE, SIZE)).shape == (1, 1, SIZE, SIZE)
    for _ in range(2):
        with pytest.raises(UnsupportedModelError, match=why):
            denoiser.denoise(image(1, 96, 96))
    assert denoiser.denoise(image(1, SIZE, SIZE)).shape == (1, 1, SIZE, SIZE)


def test_layers_that_do_not_lie_over_the_image_are_refused_alone():
    denoiser, x = wrap(Flat(SIZE)), image(1, 96, 96)
    assert denoiser.features(x, "mid").shape == (1, 4, 24, 24)
    with pytest.raises(UnsupportedModelError, match="'vector' one pixel reaches"):
        denoiser.features(x, "vector")


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_law_of_the_tiler_for_arrays_and_tensors(kind):
    def blur(tile):
        padded = np.pad(np.asarray(tile), ((0, 0), (0, 0), (2, 2), (2, 2)))
        views = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(2, 3))
        return [kind(np.ascontiguousarray(views.mean((4, 5)), dtype=np.float32))]

    x = np.random.default_rng(0).random((2, 1, 41, 57), dtype=np.float32)
    tiler = Tiler(blur, ["blur"], (16, 16), 1, 1)
    found = np.asarray(tiler(kind(x))[0])
    np.testing.assert_allclose(found, np.asarray(blur(x)[0]), atol=1e-6)
    with pytest.raises(ModelError, match="16x16 pixels or larger"):
        tiler(kind(x[..., :8]))


def test_strides_are_those_that_divide():
    assert stride_within(64, [64, 32, 8, 1, 0]) == 8
    assert stride_within(50, [12]) == 1
    assert stride_within(48, []) == 1
