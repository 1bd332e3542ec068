"""Laws of the tiling: cover, alignment, padding."""

import itertools

import numpy as np
import pytest
from ctinv.invariance.data.tiling import STEP, grid, pad_to

SHAPES = [(64, 64), (128, 128), (512, 512), (72, 200), (136, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("patch", "overlap"), [(64, 8), (32, 8), (64, 16)])
def test_tiles_cover_on_the_step(shape, patch, overlap):
    tiles = grid(shape, patch, overlap)
    covered = np.zeros(shape, int)
    for tile in tiles:
        assert covered[tile].shape == (patch, patch)
        covered[tile] += 1
    assert covered.min() >= 1
    assert all(row % STEP == column % STEP == 0 for row, column in tiles.corners)
    assert len(set(tiles.corners)) == len(tiles)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_share_the_overlap(shape):
    rows = sorted({row for row, _ in grid(shape, 64, 8).corners})
    assert all(b - a <= 64 - 8 for a, b in itertools.pairwise(rows))


@pytest.mark.parametrize("shape", [(10, 20), (64, 64), (65, 130), (512, 512), (40, 300)], ids=str)
def test_padding_keeps_the_image(shape):
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    padded = pad_to(image, 64)
    assert padded.shape[0] % STEP == padded.shape[1] % STEP == 0
    assert min(padded.shape) >= 64
    np.testing.assert_array_equal(padded[: shape[0], : shape[1]], image)
