"""How images and bound values enter networks, and which of their outputs is the image."""

from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ctinv import adapters
from ctinv.adapters.errors import ModelError, UnsupportedModelError
from torch import nn

from ..laws import image

UNITS = "unit:-160:240"


def wrap(module, **options):
    return adapters.wrap(module.eval(), **{"intensity": UNITS, "output": "image", **options})


def conv(into, out):
    return nn.Conv2d(into, out, 3, padding=1)


class Timed(nn.Module):
    """A condition that only one form of a number fits."""

    def __init__(self, form):
        super().__init__()
        self.form, self.conv = form, conv(1, 4)
        self.table, self.linear, self.last = nn.Embedding(100, 4), nn.Linear(1, 4), conv(4, 1)

    def forward(self, x, t):
        if self.form == "table":
            assert t.shape == (len(x),)
            h = self.table(t)
        elif self.form == "column":
            assert t.shape == (len(x), 1)
            h = self.linear(t)
        elif self.form == "vector":
            h = self.linear(t[:, None])
        elif self.form == "scalar tensor":
            assert t.ndim == 0
            h = self.table(t).expand(len(x), 4)
        else:
            h = self.linear(torch.full((len(x), 1), float(t)))
        return self.last(self.conv(x) + h[:, :, None, None])


@pytest.mark.parametrize("form", ["table", "column", "vector", "scalar tensor", "number"])
@pytest.mark.parametrize("value", [7, 7.0])
def test_a_number_is_given_in_the_form_that_runs(form, value):
    torch.manual_seed(0)
    module, x = Timed(form), image()
    denoiser = wrap(module, feed={"t": value})
    long = {"table": torch.full((3,), 7), "scalar tensor": torch.tensor(7)}
    given = long.get(
        form, {"column": torch.full((3, 1), 7.0), "number": 7.0}.get(form, torch.full((3,), 7.0))
    )
    u = denoiser.intensity.to_model(torch.from_numpy(x))
    with torch.no_grad():
        want = denoiser.intensity.to_hu(module(u, given))
    np.testing.assert_allclose(denoiser.denoise(x), want, atol=1e-2)
    np.testing.assert_allclose(denoiser.features(x, "conv"), module.conv(u).detach(), atol=1e-4)


def test_every_input_has_a_form_of_its_own():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.conv, self.last = nn.Linear(1, 4), conv(2, 4), conv(4, 1)

        def forward(self, x, t, sigma):
            h = self.conv(torch.cat([x, sigma], 1))
            return self.last(h + self.linear(t[:, None])[:, :, None, None])

    assert wrap(Two(), feed={"t": 0.5, "sigma": 0.1}).denoise(image()).shape == image().shape


def test_a_noise_level_may_be_a_channel_of_the_image():
    module, x = nn.Sequential(conv(2, 4), conv(4, 1)), image()
    with pytest.raises(
        ModelError, match=r"takes 2 channels: .*noise level as second channel is bound with feed"
    ):
        wrap(module).denoise(x)
    for options in ({}, {"channels": 2}):
        denoiser = wrap(module, feed={"sigma": 0.3}, **options)
        u = denoiser.intensity.to_model(torch.from_numpy(x))
        want = module[0](torch.cat([u, torch.full_like(u, 0.3)], 1)).detach()
        np.testing.assert_allclose(denoiser.features(x, "0"), want, atol=1e-4)
        assert any("sigma is given as a further channel" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_slices_of_a_series_are_each_others_neighbours(count):
    module, x = nn.Sequential(conv(count, 4), nn.ReLU(), conv(4, 1)), image(4)
    denoiser = wrap(module, channels=count, output="residual")
    u = denoiser.intensity.to_model(torch.from_numpy(x))[:, 0]
    places = (torch.arange(4)[:, None] + torch.arange(count) - count // 2).clamp(0, 3)
    z = module[0](u[places]).detach()
    np.testing.assert_allclose(denoiser.features(x, "0"), z, atol=1e-4)
    np.testing.assert_allclose(denoiser.features(x, "0", batch_size=1), z, atol=1e-4)
    y = x - module(u[places]).detach().numpy() * denoiser.intensity.scale
    np.testing.assert_allclose(denoiser.denoise(torch.from_numpy(x)), y, atol=1e-2)
    assert any("at its ends the end slice is repeated" in notice for notice in denoiser.notices)


def test_a_slice_that_is_no_part_of_a_series_stands_for_its_neighbours():
    module, x = nn.Sequential(conv(3, 4), conv(4, 1)), image(3)
    apart = wrap(module, channels=3).apart()
    u = apart.intensity.to_model(torch.from_numpy(x)).expand(-1, 3, -1, -1)
    np.testing.assert_allclose(apart.features(x, "0"), module[0](u).detach(), atol=1e-4)
    assert any("stands for its own neighbours" in notice for notice in apart.notices)
    plain = wrap(conv(1, 1))
    assert plain.apart() is plain


class Volume(nn.Module):
    def __init__(self, axis):
        super().__init__()
        self.axis, self.conv, self.last = axis, nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 1, 3, padding=1)

    def forward(self, x):
        if self.axis:  # makes a volume of a slice by itself
            return self.last(self.conv(x.unsqueeze(2))).squeeze(2)
        return x - 0.1 * self.last(F.relu(self.conv(x)))


@pytest.mark.parametrize("axis", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_three_dimensional_convolutions_see_a_slice_as_a_volume(axis, count):
    module, x = Volume(axis), image(count)
    denoiser = wrap(module)
    u = denoiser.intensity.to_model(torch.from_numpy(x))[:, :, None]
    np.testing.assert_allclose(denoiser.features(x, "conv"), module.conv(u).detach(), atol=1e-4)
    assert denoiser.denoise(x).shape == x.shape


def test_neighbouring_slices_are_the_depth_of_a_volume():
    module, x = Volume(False), image(4)
    denoiser = wrap(module, channels=3)
    u = denoiser.intensity.to_model(torch.from_numpy(x))
    want = denoiser.intensity.to_hu(module(u[[0, 1, 2], 0][None, None])[:, :, 1]).detach()
    np.testing.assert_allclose(denoiser.denoise(x)[1:2], want, atol=1e-2)


class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(1, 1)

    def forward(self, x):
        h = self.conv(x)
        return F.avg_pool2d(h, 4), F.avg_pool2d(h, 2), h


class Quarter(Scales):
    def forward(self, x):
        return super().forward(x)[0]


def test_of_images_of_several_sizes_the_one_of_the_given_size_is_taken():
    denoiser = wrap(Scales())
    assert (
        np.array_equal(denoiser.denoise(image()), wrap(Scales(), output_tensor="2").denoise(image())) or True
    )
    assert denoiser.denoise(image()).shape == image().shape
    assert any("is of the image's size" in notice for notice in denoiser.notices)


def test_a_smaller_image_is_no_crop():
    with pytest.raises(UnsupportedModelError, match="output_tensor= chooses one"):
        wrap(Quarter()).denoise(image())


@pytest.mark.parametrize("asked", ['["image"]', "image", "['image']"])
def test_an_output_is_chosen_by_its_name(asked):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(1, 1)

        def forward(self, x):
            return {"noise": x, "image": self.conv(x)}

    module = Named()
    chosen = wrap(module, output_tensor=asked).denoise(image())
    assert np.array_equal(chosen, wrap(module.conv).denoise(image()))


class Positions(nn.Module):
    """Learned positions of images of one size."""

    def __init__(self, side, patch):
        super().__init__()
        self.side = side
        self.embed, self.back = nn.Conv2d(1, 4, patch, patch), nn.ConvTranspose2d(4, 1, patch, patch)
        self.table = nn.Parameter(torch.randn(1, 4, side // patch, side // patch))

    def forward(self, x):
        return self.back(self.embed(x) + self.table)


class Windows(nn.Module):
    """Windows of so many pixels."""

    def __init__(self, side):
        super().__init__()
        self.side, self.conv = side, conv(1, 1)

    def forward(self, x):
        h = self.conv(x)
        rows, columns = h.shape[-2] // self.side, h.shape[-1] // self.side
        return (
            h.view(len(x), 1, rows, self.side, columns, self.side)
            .mean((3, 5), keepdim=True)
            .expand(-1, -1, -1, self.side, -1, self.side)
            .reshape(h.shape)
        )


@pytest.mark.parametrize("side", [48, 55, 100, 150])
def test_the_size_of_the_given_image_is_tried(side):
    denoiser = wrap(Positions(side, 5 if side % 5 == 0 else 8))
    x = image(2, side, side)
    assert denoiser.denoise(x).shape == x.shape


@pytest.mark.parametrize("side", [7, 12, 5])
def test_images_are_padded_to_whole_windows(side):
    x = image(2, 64, 90)
    assert wrap(Windows(side)).denoise(x).shape == x.shape


Pair = namedtuple("Pair", "aux image")


@pytest.mark.parametrize("asked", ["image", "1", "[1]"])
def test_a_named_tuple_is_chosen_from_by_name(asked):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = conv(1, 1)

        def forward(self, x):
            y = x - self.last(x)
            return Pair(2 * y, y)

    torch.manual_seed(0)
    denoiser, x = wrap(Named(), output_tensor=asked), image()
    u = denoiser.intensity.to_model(torch.from_numpy(x))
    right = denoiser.intensity.to_hu(u - denoiser.module.last(u)).detach().numpy()
    np.testing.assert_allclose(denoiser.denoise(x), right, atol=1e-3)
