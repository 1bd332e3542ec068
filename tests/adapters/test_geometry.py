"""Sizes that a network takes and gives back, on functions that stand for networks."""

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError, ModelError, UnsupportedModelError
from ctinv.adapters.geometry import Geometry, LeastSize, ramp


class Network:
    """From one image to the shape of the output; ``seen`` holds every image that came.

    Arguments:
        crop: Pixels lost on each side.
        multiple: What height and width must be multiples of.
        least: Smallest height and width.
    """

    def __init__(self, crop=0, multiple=1, least=1):
        self.crop, self.multiple, self.least = crop, multiple, least
        self.seen, self.notices = [], []

    def run(self, u):
        self.seen.append(u)
        n, _, height, width = u.shape
        if height % self.multiple or width % self.multiple:
            raise ModelError(f"{height}x{width} is no multiple of {self.multiple}")
        if min(height, width) < self.least:
            raise ModelError(f"{height}x{width} is too small")
        return (n, 1, height - 2 * self.crop, width - 2 * self.crop)

    def geometry(self, fixed=None, kind=Geometry):
        return kind(self.run, lambda h, w: ramp(h, w), fixed, self.notices.append)


def image(height, width, n=3):
    return np.random.default_rng(0).normal(size=(n, 1, height, width)).astype(np.float32)


def test_the_probe_image_rises_from_corner_to_corner():
    u = ramp(5, 9)
    assert (u.shape, u.dtype) == ((1, 1, 5, 9), np.float32)
    rows, columns = np.mgrid[:5, :9]
    np.testing.assert_allclose(u[0, 0], (rows / 4 + columns / 8) / 2, atol=1e-7)


@pytest.mark.parametrize("crop", [0, 1, 6])
def test_what_a_network_crops_is_found_once_and_told(crop):
    network = Network(crop)
    geometry = network.geometry()
    assert (geometry.crop, geometry.probe_size) == (crop, (64, 64))
    assert geometry.pads(image(40, 50)) == (0, 0)
    assert len(network.seen) == 2 + bool(crop)  # a crop is held against a second size
    told = [f"its output lacks {crop} pixels on each side" in notice for notice in network.notices]
    assert told == [True] * bool(crop)


@pytest.mark.parametrize(("least", "side"), [(1, 64), (65, 80), (200, 224), (300, 320)])
def test_the_smallest_probe_that_works_is_taken(least, side):
    network = Network(least=least)
    geometry = network.geometry()
    assert geometry.probe_size == (side, side)
    sides = (33, 48, 55, 80, 96, 100, 128, 144, 192, 224, 256, 320, 384, 448, 512)
    assert [u.shape[-1] for u in network.seen] == [64, *(s for s in sides if s <= side != 64)]


def test_the_size_of_the_image_given_is_tried_before_the_list():
    network = Network()
    whole = network.run
    network.run = lambda u: whole(u) if u.shape[-2:] == (72, 90) else whole(u[..., :0, :0])
    network.least = 1
    geometry = network.geometry()
    geometry.given((72, 90))
    assert geometry.probe_size == (72, 90)
    assert len(network.seen) == 2


def test_a_network_that_takes_no_probe_tells_its_first_error():
    network = Network(least=10**6)
    with pytest.raises(ModelError, match="64x64 is too small"):
        _ = network.geometry().crop
    assert len(network.seen) == 16


@pytest.mark.parametrize("multiple", [2, 8, 64])
@pytest.mark.parametrize("size", [(64, 100), (99, 70), (128, 129)])
def test_images_are_mirrored_to_the_least_multiple(multiple, size):
    network = Network(2, multiple)
    geometry = network.geometry()
    x = image(*size)
    pads = geometry.pads(x)
    assert pads == tuple(-side % multiple for side in size)
    tried = network.seen[-1]
    mirrored = np.pad(x[:1], ((0, 0), (0, 0), (0, pads[0]), (0, pads[1])), mode="reflect")
    np.testing.assert_array_equal(tried, mirrored)
    least = min(m for m in (2, 4, 8, 16, 32, 64) if pads == tuple(-side % m for side in size))
    told = [
        f"mirrored below and at the right to multiples of {least}," in notice for notice in network.notices
    ]
    assert told == [False] + [True] * any(pads)
    count = len(network.seen)
    assert geometry.pads(image(*size, n=1)) == pads
    assert len(network.seen) == count


def test_no_size_is_tried_twice_nor_mirrored_more_than_it_has():
    network = Network(multiple=1000)
    geometry = network.geometry((None, None))
    geometry._probe = (64, 64)
    with pytest.raises(ModelError, match="12x5 is no multiple of 1000"):
        geometry.pads(image(12, 5))
    tried = [u.shape[-2:] for u in network.seen]
    assert tried == [(12, 5), (12, 6), (12, 8), (16, 8), (14, 7), (15, 5)]
    network.seen.clear()
    with pytest.raises(ModelError):
        geometry.pads(image(8, 4))  # 8 more rows, or 4 more columns, would mirror the whole image
    assert all(rows < 16 and columns < 8 for rows, columns in (u.shape[-2:] for u in network.seen))


def test_images_that_come_out_too_small_are_refused():
    network = Network()
    whole = network.run
    network.run = lambda u: whole(u) if u.shape[-1] <= 256 else (1, 1, 256, 256)
    with pytest.raises(ModelError, match=r"300x300 .* mirrored to multiples of 128; give images like 64x64"):
        network.geometry().pads(image(300, 300))


@pytest.mark.parametrize("shape", [(1, 1, 63, 63), (1, 1, 62, 64), (1, 1, 64, 62), (1, 1, 66, 66)])
def test_outputs_of_odd_sizes_are_refused(shape):
    network = Network()
    network.run = lambda u: shape
    with pytest.raises(UnsupportedModelError, match=f"turns 64x64 pixels into {shape[2]}x{shape[3]}"):
        _ = network.geometry().crop


@pytest.mark.parametrize("after", [0, 1])
def test_what_no_size_can_mend_is_told_at_once(after):
    network = Network()
    calls = []

    def fail(u):
        calls.append(u)
        if len(calls) > after:
            raise UnsupportedModelError("no")
        return u.shape

    network.run = fail
    with pytest.raises(UnsupportedModelError, match="no"):
        network.geometry().pads(image(30, 30))
    assert len(calls) == after + 1


@pytest.mark.parametrize(
    ("fixed", "probe", "says"),
    [
        ((48, None), (48, 64), "48xany pixels only, not 40x64"),
        ((None, 48), (64, 48), "anyx48 pixels only, not 40x64"),
        ((48, 32), (48, 32), "48x32 pixels only, not 40x64"),
    ],
)
def test_prescribed_sizes(fixed, probe, says):
    network = Network()
    geometry = network.geometry(fixed)
    assert (geometry.fixed, geometry.probe_size) == (fixed, probe)
    assert geometry.pads(image(*probe)) == (0, 0)
    with pytest.raises(ImageError, match=says):
        geometry.pads(image(40, 64))
    refusing = Network(least=10**6).geometry((48, 32))
    with pytest.raises(ModelError):
        _ = refusing.crop


def test_a_prescribed_size_that_fails_is_tried_once():
    network = Network(least=10**6)
    with pytest.raises(ModelError):
        _ = network.geometry((48, 32)).crop
    assert len(network.seen) == 1


def test_tiles_take_the_prescribed_size_and_larger_ones():
    network = Network(multiple=4)
    geometry = network.geometry((32, 48), LeastSize)
    assert geometry.pads(image(32, 48)) == (0, 0)
    assert geometry.pads(image(33, 50)) == (3, 2)
    assert geometry.pads(image(32, 49)) == (0, 3)
    assert geometry.pads(image(40, 48)) == (0, 0)
    assert geometry.probe_size == (32, 48)
    for size in ((31, 48), (32, 47), (8, 8)):
        with pytest.raises(ImageError, match=f"32x48 pixels only, not {size[0]}x{size[1]}"):
            geometry.pads(image(*size))
    assert geometry.fixed == (32, 48)


def test_tiles_look_while_the_size_is_prescribed_and_keep_it_when_they_fail():
    network = Network(multiple=64)
    network.run = lambda u, run=network.run: u.shape if u.shape[-2:] == (32, 32) else run(u)
    geometry = network.geometry((32, 32), LeastSize)
    assert geometry.pads(image(60, 60)) == (4, 4)
    assert geometry.probe_size == (32, 32)
    network.multiple = 1000
    with pytest.raises(ModelError):
        geometry.pads(image(70, 70))
    assert geometry.fixed == (32, 32)


def test_tiles_of_one_prescribed_axis():
    geometry = Network().geometry((32, None), LeastSize)
    assert geometry.pads(image(50, 7)) == (0, 0)
    with pytest.raises(ImageError, match="32xany"):
        geometry.pads(image(31, 70))
