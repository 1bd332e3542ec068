"""Geometry of files of arrays: what the header states, or None."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
from ctinv.invariance.data import inspect, read

HU = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 8)).astype("<i2")  # slices, rows, columns
STEPS = np.array([[0, 0, 2.0], [0, 0.6, 0], [0.5, 0, 0]])  # mm, left, posterior, superior
ORIGIN = np.array([-10.0, 20.0, 30.0])


def place(index):
    """Patient coordinates of a value of HU, mm."""
    return ORIGIN + np.asarray(index) @ STEPS


def found_at(slices, point):
    """The value that slices show at a place, by their own geometry."""
    for one in slices:
        rows = np.array(one.orientation).reshape(2, 3)
        column, row = rows @ (np.array(point) - one.position) / np.array(one.spacing)[::-1]
        off = np.cross(*rows) @ (np.array(point) - one.position)
        if abs(off) < 0.01 and -0.01 < row < one.shape[0] and -0.01 < column < one.shape[1]:
            return one.hu[round(row), round(column)]
    raise AssertionError(f"no slice holds {point}")


def orientations():
    """Every order and direction in which a file may store the axes, 48 in all."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield order, signs


def stored(order, signs):
    """HU with axes in another order and direction, and steps and origin that say so."""
    values = HU.transpose(order)[tuple(slice(None, None, s) for s in signs)]
    steps = STEPS[list(order)] * np.array(signs)[:, None]
    corner = [0 if s > 0 else HU.shape[a] - 1 for a, s in zip(order, signs, strict=True)]
    start = np.zeros(3)
    for axis, index in zip(order, corner, strict=True):
        start[axis] = index
    return np.ascontiguousarray(values), steps, place(start)


def check(slices):
    for index in ((0, 0, 0), (4, 5, 7), (1, 4, 2)):
        assert found_at(slices, place(index)) == HU[index]


@pytest.mark.parametrize(("order", "signs"), list(orientations()))
def test_nifti_of_any_orientation_shows_the_same_patient(tmp_path, order, signs):
    nibabel = pytest.importorskip("nibabel")
    values, steps, origin = stored(order, signs)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps.T, origin
    affine = np.diag([-1, -1, 1, 1]) @ affine  # NIfTI counts to the right and to the front
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    slices = read(tmp_path / "a.nii.gz")
    check(slices)
    assert [s.height for s in slices] == sorted(s.height for s in slices)
    assert slices[0].orientation == pytest.approx((1, 0, 0, 0, 1, 0))
    np.testing.assert_array_equal(np.stack([s.hu for s in slices]), HU)


def test_nifti_that_states_no_orientation_has_none(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(HU, None)
    image.header.set_zooms((0.5, 0.6, 2.0))
    nibabel.save(image, tmp_path / "a.nii")
    one = read(tmp_path / "a.nii")[0]
    assert (one.position, one.orientation) == (None, None)
    assert one.spacing == pytest.approx((0.6, 0.5))


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior", "LAS"])
@pytest.mark.parametrize(("order", "signs"), list(orientations())[::7])
def test_nrrd(tmp_path, space, order, signs):
    nrrd = pytest.importorskip("nrrd")
    values, steps, origin = stored(order, signs)
    turn = {"l": (1, 1, 1), "r": (-1, -1, 1), "L": (1, -1, 1)}[space[0]]
    header = {"space": space, "space directions": steps[::-1] * turn, "space origin": origin * turn}
    nrrd.write(str(tmp_path / "a.nrrd"), values, header, index_order="C")
    check(read(tmp_path / "a.nrrd"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("order", "signs"), list(orientations())[::5])
def test_metaimage(tmp_path, compressed, order, signs):
    values, steps, origin = stored(order, signs)
    lengths = np.linalg.norm(steps, axis=1)[::-1]
    header = {
        "ObjectType": "Image",
        "NDims": 3,
        "DimSize": " ".join(map(str, values.shape[::-1])),
        "ElementSpacing": " ".join(f"{v:g}" for v in lengths),
        "TransformMatrix": " ".join(f"{v:g}" for v in (steps[::-1] / lengths[:, None]).ravel()),
        "Offset": " ".join(f"{v:g}" for v in origin),
        "CompressedData": compressed,
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    }
    blob = values.astype("<i2").tobytes()
    text = "".join(f"{key} = {value}\n" for key, value in header.items())
    (tmp_path / "a.mha").write_bytes(text.encode() + (zlib.compress(blob) if compressed else blob))
    check(read(tmp_path / "a.mha"))


def test_formats_agree_with_each_other(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", HU)
    (slices, *_) = [read(tmp_path / "a.npz")]
    np.testing.assert_array_equal(np.stack([s.hu for s in slices]), HU)
    assert slices[0].spacing is None
    assert inspect(tmp_path / "a.npz")["series"][0]["slice_distance"] is None
