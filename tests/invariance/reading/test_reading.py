"""What can be read back from a layer, held against layers whose answer is known in closed form."""

import dataclasses

import numpy as np
import pytest
import torch
from ctinv.invariance.infra.randomness import Purpose, generator
from ctinv.invariance.presets import ReadingConfig
from ctinv.invariance.reading.fit_reading import ReadingFit
from ctinv.invariance.reading.reading import RIM, Reading, aligned, blocks_of
from ctinv.invariance.representation.geometry import Geometry
from torch.nn import functional as F

SIGMA = 40.0
LINEAR = ReadingConfig(places=900, width=0)


def images(count=5, size=64, seed=0):
    """White noise: no pixel tells about another."""
    rng = np.random.default_rng(seed)
    return [(SIGMA * rng.standard_normal((size, size))).astype(np.float32) for _ in range(count)]


def geometry(scale=1.0, channels=1, offset=(0, 0)):
    side = max(1, round(32 * scale))
    return Geometry(True, scale, offset, channels, (side, side))


def fitted(layer, form, config=LINEAR, slices=None):
    fit = ReadingFit(form, config, generator(0, Purpose.READING), held=2)
    for image in slices or images():
        fit.add(layer(torch.from_numpy(image)[None, None]), image)
    return fit.fit()


def mixed(x):
    """Two channels that together hold the image, each filtered."""
    kernel = torch.tensor([[[[0.0, 0.2, 0.0], [0.1, 1.0, 0.3], [0.0, 0.1, 0.0]]]])
    return torch.cat([F.conv2d(x, kernel, padding=1), x.roll(1, 3) * 3 + 7], 1)


# Layer, geometry, and the share of the image's spread that the best estimate leaves open.
KNOWN = {
    "identity": (lambda x: x * 2 - 5, geometry(), 0.0),
    "filtered": (mixed, geometry(channels=2), 0.0),
    "constant": (lambda x: torch.ones_like(x), geometry(), 1.0),
    "mean of four": (lambda x: F.avg_pool2d(x, 2), geometry(0.5), np.sqrt(3 / 4)),
    "every phase": (lambda x: F.pixel_unshuffle(x, 2), geometry(0.5, 4), 0.0),
    "one of two": (lambda x: F.pixel_unshuffle(x, 2)[:, :2], geometry(0.5, 2), np.sqrt(1 / 2)),
    "finer": (lambda x: F.interpolate(x, scale_factor=2), geometry(2.0), 0.0),
    "with noise": (lambda x: x + x.flip(3) * 0.5, geometry(), np.sqrt(0.2)),  # flipped: as good as noise
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_linear_reading_is_the_best_linear_estimate(name):
    layer, form, share = KNOWN[name]
    reading, scores = fitted(layer, form)
    assert scores.rmse == scores.linear
    assert scores.rmse == pytest.approx(share * SIGMA, rel=0.06, abs=0.05)
    assert len(scores.each) == 2
    image = images(1, 48, seed=9)[0]
    read = reading(layer(torch.from_numpy(image)[None, None]), form, image.shape)
    assert read.shape == (1, 1, 48, 48)
    away = (read[0, 0].numpy() - image)[RIM:-RIM, RIM:-RIM]
    assert np.sqrt(np.mean(away**2)) == pytest.approx(share * SIGMA, rel=0.15, abs=0.1)


def test_the_network_adds_what_is_not_linear():
    """The sign of a pixel and its size stand in two channels: only together do they tell it."""

    def layer(x):
        return torch.cat([x.abs(), x.sign()], 1)

    config = dataclasses.replace(LINEAR, width=16, steps=300, crops=12, side=24, batch=8)
    _, linear = fitted(layer, geometry(channels=2))
    reading, scores = fitted(layer, geometry(channels=2), config)
    # The best linear estimate from the sign: E|x| times it.
    assert linear.rmse == pytest.approx(SIGMA * np.sqrt(1 - 2 / np.pi), rel=0.06)
    assert scores.linear == pytest.approx(linear.rmse, rel=0.02)
    assert scores.rmse < 0.5 * linear.rmse
    assert reading.width == 16


def test_a_network_that_learns_nothing_that_holds_is_left_out():
    config = dataclasses.replace(LINEAR, width=16, steps=200, crops=1, side=24, batch=2, rate=0.1)
    reading, scores = fitted(lambda x: F.avg_pool2d(x, 2), geometry(0.5), config, images(3))
    assert reading.network is None
    assert scores.rmse == scores.linear


def test_a_border_that_says_nothing_spoils_nothing_inside():
    def layer(x):
        z = x.clone()
        z[..., :3, :] = z[..., -3:, :] = 1e3
        return z

    reading, scores = fitted(layer, geometry())
    assert scores.rmse < 0.05
    image = images(1, seed=5)[0]
    read = reading(layer(torch.from_numpy(image)[None, None]), geometry(), image.shape)[0, 0].numpy()
    np.testing.assert_allclose(read[RIM:-RIM, RIM:-RIM], image[RIM:-RIM, RIM:-RIM], atol=0.1)
    assert np.abs(read).max() < 10 * SIGMA


def test_slices_of_any_size_are_read():
    layer, form, _ = KNOWN["every phase"]
    reading, _ = fitted(layer, form)
    z = layer(torch.zeros(1, 1, 52, 42))
    assert reading(z, form, (51, 41)).shape == (1, 1, 51, 41)


def test_a_map_is_laid_over_its_image():
    z = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(aligned(z, geometry(), (6, 6)), z)
    smaller = aligned(z, geometry(offset=(-1, -1)), (8, 8))
    assert torch.equal(smaller[..., 1:7, 1:7], z)
    assert torch.equal(smaller[0, 0, 0], smaller[0, 0, 1])
    fine = aligned(z, geometry(2.0), (3, 3))
    assert torch.equal(fine[0, :, 0, 0], torch.tensor([0.0, 1.0, 6.0, 7.0]))
    assert torch.equal(blocks_of(z, 2)[0, :, 0, 0], torch.tensor([0.0, 1.0, 6.0, 7.0]))


def test_wide_layers_get_smaller_windows():
    fit = ReadingFit(geometry(channels=300), LINEAR, generator(0, Purpose.READING))
    assert fit._window == 1
    assert ReadingFit(geometry(channels=32), LINEAR, generator(0, Purpose.READING))._window == 5


def test_without_slices_there_is_nothing_to_fit():
    with pytest.raises(ValueError, match="slices to learn from"):
        ReadingFit(geometry(), LINEAR, generator(0, Purpose.READING)).fit()


def test_the_same_seed_gives_the_same_reading():
    config = dataclasses.replace(LINEAR, width=4, steps=5, crops=4, side=24, batch=2)
    first, second = (fitted(*KNOWN["mean of four"][:2], config)[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_sizes_and_weights_make_the_same_reading_again():
    reading, _ = fitted(*KNOWN["filtered"][:2])
    twin = Reading(**reading.sizes)
    twin.load_state_dict(reading.state_dict())
    z = mixed(torch.from_numpy(images(1)[0])[None, None])
    assert torch.equal(twin(z, geometry(channels=2), (64, 64)), reading(z, geometry(channels=2), (64, 64)))


@pytest.mark.parametrize("shape", [(20, 90), (21, 22), (37, 64), (100, 90)])
@pytest.mark.parametrize("window", [1, 5])
def test_the_border_is_read_with_weights_of_its_own_at_any_size(shape, window):
    """Inside as the linear part and the network read them, at the border as the edge's weights do."""
    torch.manual_seed(0)
    reading = Reading(3, 2, window, 4).eval()
    z = torch.randn(2, 3, *shape)
    with torch.no_grad():
        scaled = reading.standardised(z)
        expected = reading.linear(scaled) + reading.spread * reading.network(scaled.clamp(-8, 8))
        at_border = torch.ones(shape, dtype=torch.bool)
        at_border[RIM:-RIM, RIM:-RIM] = False
        expected[..., at_border] = reading.edge(scaled)[..., at_border]
        torch.testing.assert_close(reading.blocks(z), expected)
