"""A part of a slice stands for the whole where the layer says the same there, and only there."""

import numpy as np
import pytest
import torch
from ctinv import zoo
from ctinv.invariance.refinement.nearby import nearby
from ctinv.invariance.refinement.sight import Sight
from torch import nn

from .toys import draw, sight

SIDE = 160


def around(row, column, radius=4, size=SIDE):
    rows, columns = np.ogrid[:size, :size]
    return np.hypot(rows - row, columns - column) <= radius


def convolved(padding=1, stride=1, kernel=3, reach=1):
    torch.manual_seed(1)
    parts = []
    for k in range(reach):
        parts += [nn.Conv2d(1 if k == 0 else 2, 2, kernel, stride, padding), nn.LeakyReLU(0.3)]
    net = nn.Sequential(*parts).requires_grad_(False)
    for part in net[::2]:
        part.weight *= kernel / 2  # or little would be left of a change, beside rounding
    return lambda x: net(x)


LAYERS = {
    "padded": (convolved(), True),
    "without padding": (convolved(0), True),
    "strided": (convolved(stride=2), True),
    "of wide reach": (convolved(kernel=9, padding=4, reach=4), True),
    "of the mean": (lambda x: torch.cat([x, x * x.mean((2, 3), keepdim=True)], 1), False),
    "of far away": (lambda x: torch.cat([x, x.flip(-1)], 1), False),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("place", [(80, 90), (3, 150)])
def test_a_part_says_what_the_whole_says(name, place):
    function, cut = LAYERS[name]
    region = around(*place)
    look = sight(function, 2, size=SIDE).within(region)
    near = nearby(look, region)
    assert (near.sight.x.size < 0.5 * look.x.size) == cut
    change = draw(5, 1, SIDE)[0] * region
    assert near.sight.ratio(near.cut(change)) == pytest.approx(look.ratio(change), rel=1e-3)
    assert near.sight.moves == pytest.approx(look.moves, rel=1e-3)
    np.testing.assert_array_equal(near.put(near.cut(change)), change)


def test_a_wide_reach_takes_a_wider_part():
    region = around(80, 80)
    sizes = [
        nearby(sight(LAYERS[name][0], 2, size=SIDE), region).sight.x.size
        for name in ("padded", "of wide reach")
    ]
    assert sizes[0] < sizes[1]


def test_a_region_that_is_most_of_the_slice_is_left_whole():
    look = sight(convolved(), 2, size=SIDE)
    assert nearby(look, around(80, 80, 60)).sight is look
    assert nearby(look, np.zeros((SIDE, SIDE), bool)).sight is look


def test_a_layer_of_a_zoo_network_is_cut_and_gives_the_same():
    x = draw(7, 1, SIDE)[0] + 40
    region = around(70, 60, 6)
    look = Sight.of(zoo.load("yang"), "conv7", x, patch=16).within(region)
    near = nearby(look, region)
    assert near.sight.x.shape == (48, 64)
    change = draw(5, 1, SIDE)[0] * region
    assert near.sight.ratio(near.cut(change)) == pytest.approx(look.ratio(change), rel=1e-3)
