"""Slices that stay on disk are those that reading gives: same order, same pixels, same names."""

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import load
from ctinv.invariance.data.io.series import read_file
from ctinv.invariance.data.io.stored import in_memory, stored


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "ct"
    place.mkdir()
    rng = np.random.default_rng(0)
    for name in ("10", "9", "1"):
        np.save(place / f"{name}.npy", rng.normal(0, 50, (16, 24)).astype(np.float32))
    np.save(place / "bad.npy", np.zeros((2, 2, 2, 2), np.float32))
    return place


def same(one, other):
    np.testing.assert_array_equal(one.hu, other.hu)
    np.testing.assert_array_equal(one.valid, other.valid)
    assert (one.name, one.spacing, one.position, one.source) == (
        other.name,
        other.spacing,
        other.position,
        other.source,
    )
    assert one.meta == other.meta


def test_they_are_those_of_load(folder):
    whole, light = load(folder), stored(folder)
    assert [s.name for s in light.slices] == [s.name for s in whole.slices]
    assert (light.left_out, light.notes) == (whole.left_out, whole.notes)
    assert len(light.left_out) == 1
    for one, other in zip(light.slices, whole.slices, strict=True):
        same(one.read(), other)
        assert one.header.shape == other.shape
        assert one.header.hu.strides == (0, 0)  # no pixels are kept


def test_a_volume_is_read_once_for_neighbouring_slices(tmp_path, monkeypatch):
    volume = np.random.default_rng(0).normal(0, 50, (4, 16, 16)).astype(np.float32)
    np.save(tmp_path / "volume.npy", volume)
    light = stored(tmp_path / "volume.npy")
    calls = []

    def spy(*given):
        calls.append(given)
        return read_file(*given)

    monkeypatch.setattr("ctinv.invariance.data.io.stored.read_file", spy)
    for one, plane in zip(light.slices, volume, strict=True):
        np.testing.assert_array_equal(one.read().hu, plane)
    assert len(calls) == 1


@pytest.mark.parametrize("gone", [False, True])
def test_a_file_that_changed_is_refused(folder, gone):
    light = stored(folder)
    if gone:
        (folder / "9.npy").unlink()
    else:
        np.save(folder / "9.npy", np.full((16, 24), 7, np.float32))
    with pytest.raises(ImageError, match=r"9\.npy"):
        light.slices[1].read()
    assert light.slices[0].read().hu.shape == (16, 24)


def test_names_can_be_kept(folder):
    one = stored(folder).slices[0]
    assert one.name.startswith("slice-")
    assert one.named(keep=True).name == one.named(keep=True).read().name == "1.npy"
    assert one.named(keep=False).read().name == one.name


def test_what_is_in_memory_takes_the_same_form(folder):
    one = load(folder).slices[0]
    assert in_memory(one).read().name == in_memory(one).name == one.name
