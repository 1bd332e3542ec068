"""From arrays and what headers state to slices with a place."""

from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.metaimage import read_metaimage
from ctinv.invariance.data.io.volume import Volume, slices_of

FILE = Path("a.npy")


def values(*shape):
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.float32)


def test_steps_become_spacing_and_axes():
    steps = np.array([[0.0, 0.0, -2.5], [0.0, 0.6, 0.0], [0.5, 0.0, 0.0]])
    found = Volume.from_steps(values(3, 4, 5), steps, np.array([1.0, 2.0, 3.0]))
    assert found.spacing == (2.5, 0.6, 0.5)
    np.testing.assert_allclose(found.axes, [[0, 0, -1], [0, 1, 0], [1, 0, 0]])
    slices = slices_of(found, FILE)
    assert [s.position for s in slices] == [(1.0, 2.0, 3.0 - 2.5 * k) for k in range(3)]
    assert {s.orientation for s in slices} == {(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)}
    assert {s.spacing for s in slices} == {(0.6, 0.5)}
    assert [(s.meta["instance"], s.meta["slice_spacing"]) for s in slices] == [(k, 2.5) for k in (1, 2, 3)]
    assert slices[0].meta["series_description"] == "a.npy"


def test_values_that_are_no_hu_are_refused_unless_a_scale_is_told():
    scaled = Volume(np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8))
    with pytest.raises(ImageError, match=r"scaled to \[0, 1\]"):
        slices_of(scaled, FILE)
    (found,) = slices_of(scaled, FILE, offset=1024.0, scale=4096.0)
    assert found.hu.max() == pytest.approx(3072)


@pytest.mark.parametrize(("shear", "known"), [(0.015, True), (-0.015, True), (0.03, False), (-0.03, False)])
def test_sheared_pixels_have_a_spacing_only(shear, known):
    steps = np.array([[0.0, 0.0, 1.0], [shear, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = Volume.from_steps(values(2, 4, 4), steps, np.zeros(3))
    assert found.spacing == pytest.approx((1, 1, 1), abs=1e-3)
    assert (found.axes is not None) == (found.origin is not None) == known


@pytest.mark.parametrize("broken", ["zero step", "nan step", "nan origin"])
def test_geometry_that_makes_no_sense_is_none(broken):
    steps, origin = np.eye(3)[::-1].copy(), np.zeros(3)
    if broken == "nan origin":
        origin[1] = np.nan
    else:
        steps[1] = 0.0 if broken == "zero step" else np.nan
    found = Volume.from_steps(values(2, 4, 4), steps, origin)
    assert (found.spacing, found.axes, found.origin) == (None, None, None)
    (first, _) = slices_of(found, FILE)
    assert (first.spacing, first.position, first.orientation) == (None, None, None)
    assert "slice_spacing" not in first.meta


@pytest.mark.parametrize(
    ("offset", "scale", "wanted"),
    [(None, None, 1.0), (100.0, None, -99.0), (None, 2.0, 2.0), (100.0, 2.0, -98.0), (0.0, 0.5, 0.5)],
)
def test_scale_is_applied_before_the_offset_is_taken_off(offset, scale, wanted):
    stored = np.full((4, 4), -500.0)
    stored[0, 0] = 1.0
    (found,) = slices_of(Volume(stored), FILE, offset, scale)
    assert found.hu[0, 0] == wanted
    assert found.hu.dtype == np.float32


@pytest.mark.parametrize(
    ("stored", "scale", "words"),
    [
        (np.zeros((4, 4), complex), None, "complex128 values"),
        (np.zeros((2, 2, 4, 4)), None, r"shape \(2, 2, 4, 4\); give"),
        (np.zeros(4), None, r"shape \(4,\); give"),
        (np.zeros((0, 4)), None, r"shape \(0, 4\); give"),
        (np.zeros((5, 6, 3)), None, "a colour picture"),
        (np.zeros((5, 6, 4)), None, "a colour picture"),
        (np.array([[np.nan, 1.0]]), None, "NaN or infinity"),
        (np.array([[-1.0, 1.1e6]]), None, "beyond a million"),
        (np.array([[-1.1e6, 1.0]]), None, "beyond a million"),
        (np.array([[-1.0, 600.0]]), -2000.0, "beyond a million"),
    ],
)
def test_arrays_that_are_no_slices(stored, scale, words):
    with pytest.raises(ImageError, match=words):
        slices_of(Volume(stored), FILE, None, scale)


@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 6, 5), (5, 4, 3)])
def test_small_stacks_are_no_colour_pictures(shape):
    assert len(slices_of(Volume(values(*shape)), FILE)) == shape[0]


HEADER = {
    "NDims": "3",
    "DimSize": "4 3 2",
    "ElementType": "MET_SHORT",
    "ElementSpacing": "0.5 0.6 2",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "7 8 9",
    "ElementDataFile": "LOCAL",
}


def metaimage(folder, data=None, **changes):
    """A .mha of 2 x 3 x 4 values; keys given None are left out."""
    stored = np.arange(-12, 12, dtype="<i2")
    header = {key: value for key, value in (HEADER | changes).items() if value is not None}
    last = {key: header.pop(key) for key in ("ElementDataFile",) if key in header}
    text = "".join(f"{key} = {value}\n" for key, value in (header | last).items())
    path = folder / "a.mha"
    path.write_bytes(text.encode() + (stored.tobytes() if data is None else data))
    return path


def test_metaimage_geometry(tmp_path):
    found = read_metaimage(metaimage(tmp_path))
    np.testing.assert_array_equal(found.values, np.arange(-12, 12).reshape(2, 3, 4))
    assert found.spacing == (2.0, 0.6, 0.5)
    np.testing.assert_array_equal(found.axes, np.eye(3)[::-1])
    np.testing.assert_array_equal(found.origin, [7, 8, 9])


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({"TransformMatrix": None}, "spacing"),
        ({"TransformMatrix": None, "Orientation": "0 1 0 1 0 0 0 0 1"}, "axes"),
        ({"TransformMatrix": None, "Rotation": "0 1 0 1 0 0 0 0 1"}, "axes"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0"}, "spacing"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 one"}, "spacing"),
        ({"TransformMatrix": "1 0 0 1 1 0 0 0 1"}, "spacing"),
        ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, "spacing"),
        ({"ElementSpacing": None}, "nothing"),
        ({"ElementSpacing": None, "ElementSize": "0.5 0.6 2"}, "axes"),
        ({"ElementSpacing": "0.5 0 2"}, "nothing"),
        ({"ElementSpacing": "0.5 -1 2"}, "nothing"),
        ({"ElementSpacing": "0.5 inf 2"}, "nothing"),
        ({"ElementSpacing": "0.5 0.6"}, "nothing"),
    ],
)
def test_metaimage_that_states_less(tmp_path, changes, known):
    found = read_metaimage(metaimage(tmp_path, **changes))
    assert found.spacing == (None if known == "nothing" else (2.0, 0.6, 0.5))
    assert (found.axes is not None) == (known == "axes")


@pytest.mark.parametrize("key", ["Position", "Origin"])
def test_metaimage_origin_under_other_names(tmp_path, key):
    found = read_metaimage(metaimage(tmp_path, Offset=None, **{key: "3 2 1"}))
    np.testing.assert_array_equal(found.origin, [3, 2, 1])


def test_metaimage_of_one_slice(tmp_path):
    found = read_metaimage(metaimage(tmp_path, NDims="2", DimSize="6 4", ElementSpacing="0.5 0.6"))
    assert found.values.shape == (4, 6)
    assert (found.spacing, found.axes) == ((None, 0.6, 0.5), None)


@pytest.mark.parametrize("skip", [-1, 5])
def test_metaimage_bytes_before_the_data_are_skipped(tmp_path, skip):
    stored = b"extra" + np.arange(-12, 12, dtype="<i2").tobytes()
    (tmp_path / "a.raw").write_bytes(stored)
    found = read_metaimage(metaimage(tmp_path, b"", HeaderSize=str(skip), ElementDataFile="a.raw"))
    np.testing.assert_array_equal(found.values.ravel(), np.arange(-12, 12))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DimSize": "4 3"}, "NDims 3 but DimSize 4 3"),
        ({"DimSize": "4 3 0"}, "two or three positive numbers"),
        ({"DimSize": "24", "NDims": None}, "two or three positive numbers"),
        ({"DimSize": "2 3 2 2", "NDims": None}, "two or three positive numbers"),
        ({"DimSize": "2000 2000 2000"}, "two or three positive numbers"),
        ({"DimSize": "4 3 3"}, "announces 4 x 3 x 3 pixels, 72 bytes, but has 48"),
        ({"ElementType": "MET_STRING"}, "holds MET_STRING; known are"),
        ({"ElementType": "MET_LONG"}, "announces 4 x 3 x 2 pixels, 96 bytes, but has 48"),
        ({"ElementNumberOfChannels": "2"}, "one channel"),
        ({"DimSize": None}, "it has no dimsize"),
        ({"ElementType": None}, "it has no elementtype"),
        ({"ElementDataFile": None}, "it has no elementdatafile"),
        ({"ElementDataFile": "../b.raw"}, "outside its folder"),
        ({"ElementDataFile": "/etc/b.raw"}, "outside its folder"),
        ({"ElementDataFile": "up/../../s%d.raw"}, "outside its folder"),
        ({"ElementDataFile": "LIST"}, "write LOCAL in place of LIST"),
        ({"ElementDataFile": "b.raw"}, "needs b.raw beside it"),
    ],
)
def test_metaimage_that_is_refused(tmp_path, changes, words):
    with pytest.raises(ImageError, match=words):
        read_metaimage(
            metaimage(tmp_path, b"" if changes.get("ElementDataFile", "x") is None else None, **changes)
        )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("s%d.raw", ("s1.raw", "s2.raw")),
        ("s%02d.raw 4 8 4", ("s04.raw", "s08.raw")),
        ("s%d.raw 0 1", ("s0.raw", "s1.raw")),
    ],
)
def test_metaimage_slices_in_files_of_their_own(tmp_path, pattern, names):
    stored = np.arange(-12, 12, dtype="<i2").reshape(2, 12)
    for name, part in zip(names, stored, strict=True):
        (tmp_path / name).write_bytes(part.tobytes())
    found = read_metaimage(metaimage(tmp_path, b"", ElementDataFile=pattern))
    np.testing.assert_array_equal(found.values.ravel(), np.arange(-12, 12))
