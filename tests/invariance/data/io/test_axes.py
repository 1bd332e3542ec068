"""Which axis counts slices: told by the values, by an axis of length one, else by the shape."""

from __future__ import annotations

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import read


def volume(slices, rows, columns, noise=10.0):
    """A body in air, alike in all slices but for noise; HU."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    y, x = 2 * y / (rows - 1) - 1, 2 * x / (columns - 1) - 1
    hu = np.where(np.hypot(x, 1.3 * y) < 0.85, 40.0, -1000.0)
    hu[np.hypot(x - 0.3, y) < 0.16] = 300.0
    return np.rint(hu + np.random.default_rng(0).normal(0, noise, (slices, rows, columns)))


SHAPES = [(64, 64, 80), (64, 64, 64), (128, 128, 96), (64, 80, 64), (64, 64, 32), (12, 64, 64), (70, 64, 64)]


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_bodies(tmp_path, shape, suffix):
    store, path = {"npy": np.save, "npz": np.savez}[suffix], tmp_path / f"a.{suffix}"
    hu = volume(*shape)
    store(path, hu)
    np.testing.assert_array_equal([one.hu for one in read(path)], hu)
    store(path, np.moveaxis(hu, 0, -1))
    with pytest.raises(ImageError, match=r"slices seem to come last; give .*moveaxis.*volume\[:, None\]"):
        read(path)


def test_an_axis_of_length_one_settles_it(tmp_path):
    path, hu = tmp_path / "a.npy", np.random.default_rng(0).normal(0, 100, (64, 64, 80))
    np.save(path, hu)
    with pytest.raises(ImageError, match="slices seem to come last"):
        read(path)
    for told in (hu[:, None], hu[..., None]):
        np.save(path, told)
        assert len(read(path)) == 64
    np.save(path, hu[None])
    with pytest.raises(ImageError, match="slices seem to come last"):
        read(path)


@pytest.mark.parametrize("count", [64, 65])
def test_patches_are_no_volume(tmp_path, count):
    """Patches cut anywhere: the first and the last of air, the others of tissue up to their border."""
    rng = np.random.default_rng(0)
    hu = rng.choice([-1000.0, 40.0, 60.0], (count, 1, 1)) + rng.normal(0, 10, (count, 64, 64))
    hu[[0, -1]] = -1000.0
    np.save(tmp_path / "a.npy", hu)
    assert len(read(tmp_path / "a.npy")) == count


@pytest.mark.parametrize("last", [False, True])
def test_a_crop_is_told_by_how_rough_it_is(tmp_path, last):
    """Wholly within tissue: within slices values are correlated, across them they are not."""
    from scipy import ndimage

    shape = (80, 64, 64) if last else (64, 64, 80)
    hu = 60 + 40 * ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 1, shape), (0, 1, 1))
    np.save(tmp_path / "a.npy", np.moveaxis(hu, 0, -1) if last else hu)
    if last:
        with pytest.raises(ImageError, match="slices seem to come last"):
            read(tmp_path / "a.npy")
    else:
        assert len(read(tmp_path / "a.npy")) == 64


def test_pages_of_a_tiff_are_slices(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    hu = np.random.default_rng(0).normal(0, 100, (64, 64, 80)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", hu, photometric="minisblack")
    assert len(read(tmp_path / "a.tif")) == 64
