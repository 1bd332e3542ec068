"""Outputs that lack more on one side, on functions and networks that stand for denoisers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ctinv import adapters
from ctinv.adapters.centring import check_centred
from ctinv.adapters.errors import UnsupportedModelError
from ctinv.adapters.geometry import ramp
from torch import nn

REFUSED = "on one side than on the other"


def blurred(u, top, left, bottom, right):
    """A 3x3 mean of an image, cut."""
    padded = np.pad(u, ((0, 0), (0, 0), (1, 1), (1, 1)))
    mean = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3)).mean((4, 5))
    return mean[..., top : mean.shape[2] - bottom, left : mean.shape[3] - right]


@pytest.mark.parametrize("cut", [(2, 2, 2, 2), (5, 5, 5, 5), (0, 0, 0, 0), (1, 1, 1, 1), (2, 3, 2, 3)])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_what_is_cut_alike_is_centred(cut, size):
    assert check_centred(lambda u: blurred(u, *cut), ramp(*size), "net")


@pytest.mark.parametrize(
    "cut",
    [
        *((4, 4, 0, 0), (0, 0, 6, 6), (0, 4, 4, 0), (3, 0, 3, 8)),
        *((2, 2, 0, 0), (0, 0, 2, 2), (2, 0, 0, 2), (3, 3, 1, 1), (1, 2, 1, 0)),
    ],
)
def test_what_is_cut_more_on_one_side_is_refused(cut):
    with pytest.raises(UnsupportedModelError, match=r"'net' turns 64x64 .* on one side than on the other"):
        check_centred(lambda u: blurred(u, *cut), ramp(64, 64), "net")


def cut_of(cut, step):
    """A network that returns its input cut, with some of what lies ``step`` pixels around."""
    top, left, bottom, right = cut

    def run(u):
        around = np.maximum(np.roll(u, step, -1) + np.roll(u, -step, -2) - 0.9, 0.0)
        whole = u - 0.1 * around + 1e-3 * u.mean()
        return whole[..., top : u.shape[-2] - bottom, left : u.shape[-1] - right]

    return run


@pytest.mark.parametrize("step", [3, 5])
def test_networks_that_see_everything_are_judged_by_where_pixels_come_out(step):
    assert check_centred(cut_of((1, 1, 1, 1), step), ramp(64, 64), "net")
    for cut in ((2, 2, 0, 0), (0, 1, 2, 1)):
        with pytest.raises(UnsupportedModelError, match=REFUSED):
            check_centred(cut_of(cut, step), ramp(64, 64), "net")


def test_a_smaller_image_is_no_cut():
    check_centred(lambda u: u[..., ::2, ::2], ramp(64, 64), "net")


def test_what_cannot_be_judged_is_told():
    mixing = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32) / 8
    notices = []
    network = lambda u: (mixing @ u @ mixing)[..., 2:, 2:]  # noqa: E731
    assert not check_centred(network, ramp(64, 64), "net", notices.append)
    assert len(notices) == 1
    assert "could not be verified" in notices[0]
    assert check_centred(lambda u: blurred(u, 1, 1, 1, 1), ramp(64, 64), "net", notices.append)
    assert len(notices) == 1


class Pooled(nn.Module):
    """Channels weighed by their means, as in squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, h):
        return h * torch.sigmoid(self.excite(F.relu(self.squeeze(h.mean((2, 3), keepdim=True)))))


class Attending(nn.Module):
    """Each place sees all others."""

    def __init__(self):
        super().__init__()
        self.down, self.qkv, self.up = nn.Conv2d(8, 8, 8, 8), nn.Linear(8, 24), nn.ConvTranspose2d(8, 8, 8, 8)

    def forward(self, h):
        small = self.down(h)
        q, k, v = self.qkv(small.flatten(2).transpose(1, 2)).chunk(3, -1)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, small.shape[2:])
        return h + F.interpolate(self.up(seen), h.shape[2:])


class Normed(nn.Module):
    def forward(self, h):
        return F.instance_norm(h)


class Cut(nn.Module):
    def __init__(self, middle, cut, skip):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = (
            nn.Conv2d(1, 8, 3, padding=1),
            middle(),
            nn.Conv2d(8, 1, 3, padding=1),
        )
        self.cut, self.skip = cut, skip

    def forward(self, x):
        top, left, bottom, right = self.cut
        y = self.last(F.relu(self.middle(self.first(x)))) + self.skip * x
        return y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]


def opened(middle, cut, skip):
    return adapters.wrap(Cut(middle, cut, skip).eval(), intensity="unit:-1024:3072", output="image")


@pytest.mark.parametrize("cut", [(2, 2, 0, 0), (0, 0, 2, 2), (3, 3, 1, 1)])
@pytest.mark.parametrize(
    ("middle", "skip"), [(Pooled, 0.0), (Pooled, 1.0), (Normed, 0.0), (Normed, 1.0), (Attending, 1.0)]
)
def test_cuts_beside_what_sees_the_whole_image_are_found(middle, skip, cut):
    with pytest.raises(UnsupportedModelError, match=REFUSED):
        _ = opened(middle, cut, skip).crop
    assert opened(middle, (1, 1, 1, 1), skip).crop == 1


def test_where_places_are_apart_from_patch_to_patch_only_it_is_told():
    denoiser = opened(Attending, (2, 2, 0, 0), 0.0)
    assert denoiser.crop == 1
    assert any("could not be verified" in notice for notice in denoiser.notices)
