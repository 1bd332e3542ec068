"""Derived DICOM: the values come back, the geometry stays, the identity is new."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import CTSlice, default_slice, new_series_uid, read, write_dicom
from pydicom.data import get_testdata_file


@pytest.fixture(scope="module")
def template():
    return default_slice()


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(-5.0, 80.0, 0.01), (-1024.0, 3071.0, 0.1), (-1024.0, 20000.0, 1.0), (0.0, 400.0, 0.02)],
)
def test_values_come_back_within_half_a_step(tmp_path, template, low, high, step):
    image = np.random.default_rng(0).uniform(low, high, template.shape).astype(np.float32)
    image[0, 0], image[0, 1] = low, high
    path = write_dicom(image, template, tmp_path / "a.dcm", "test")
    assert float(pydicom.dcmread(path).RescaleSlope) == step
    (found,) = read(path)
    assert np.abs(found.hu - image).max() <= step / 2 + 1e-3
    assert found.valid.all()


def test_integers_are_exact(tmp_path, template):
    image = np.random.default_rng(0).integers(-1024, 3072, template.shape)
    np.testing.assert_array_equal(
        read(write_dicom(image, template, tmp_path / "a.dcm", "test", step=1))[0].hu, image
    )


def test_same_place_new_identity(tmp_path, template):
    path = write_dicom(
        np.zeros(template.shape), template, tmp_path / "a.dcm", "Standard deviation of 250 samples"
    )
    made, source = pydicom.dcmread(path), pydicom.dcmread(template.source)
    for keyword in (
        "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "PixelSpacing", "ImagePositionPatient",
        "ImageOrientationPatient", "Rows", "Columns", "InstanceNumber",
    ):  # fmt: skip
        assert made[keyword].value == source[keyword].value, keyword
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert made[keyword].value != source[keyword].value
    assert list(made.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert made.DerivationDescription == made.SeriesDescription == "Standard deviation of 250 samples"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert "PixelPaddingValue" not in made
    assert not [e for e in made if e.tag.is_private]


def test_series_is_shared_and_instances_are_not(tmp_path, template):
    series = new_series_uid()
    made = [
        pydicom.dcmread(
            write_dicom(
                np.zeros(template.shape), template, tmp_path / f"{i}", "x", series_uid=series, instance=i
            )
        )
        for i in (1, 2)
    ]
    assert {m.SeriesInstanceUID for m in made} == {series}
    assert len({m.SOPInstanceUID for m in made}) == 2
    assert [m.InstanceNumber for m in made] == [1, 2]


@pytest.mark.parametrize("name", ["J2K_pixelrep_mismatch.dcm", "MR_small.dcm"])
def test_other_templates(tmp_path, name):
    file = get_testdata_file(name, download=False)
    if file is None:
        pytest.skip(f"this pydicom ships no {name}")
    shape = (int(pydicom.dcmread(file).Rows), int(pydicom.dcmread(file).Columns))
    if name.startswith("MR"):
        with pytest.raises(ImageError, match="is MR"):
            write_dicom(np.zeros(shape), file, tmp_path / "a.dcm", "x")
        return
    made = pydicom.dcmread(write_dicom(np.ones(shape), file, tmp_path / "a.dcm", "x"))
    assert not made.file_meta.TransferSyntaxUID.is_compressed
    assert (made.pixel_array == made.pixel_array.flat[0]).all()


def test_big_endian_template(tmp_path, template):
    source = pydicom.dcmread(template.source)
    source.remove_private_tags()
    big = pydicom.Dataset()
    big.update({element.tag: element for element in source})
    big.file_meta = source.file_meta
    big.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    big.save_as(tmp_path / "big.dcm", implicit_vr=False, little_endian=False)
    image = np.arange(128 * 128).reshape(128, 128) % 3000
    made = read(write_dicom(image, tmp_path / "big.dcm", tmp_path / "a.dcm", "x"))[0]
    np.testing.assert_allclose(made.hu, image, atol=0.05)
    assert made.spacing == template.spacing


def test_without_a_template(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (12, 14)).astype(np.float32)
    image = CTSlice(hu, np.ones((12, 14), bool), (0.5, 0.25), (1.0, 2.0, 3.0), (1.0, 0, 0, 0, 1.0, 0))
    (found,) = read(write_dicom(image, None, tmp_path / "a.dcm", "x"))
    np.testing.assert_allclose(found.hu, hu, atol=0.03)
    assert found.spacing == (0.5, 0.25)
    assert found.position == (1.0, 2.0, 3.0)
    assert read(write_dicom(hu, None, tmp_path / "b.dcm", "x"))[0].spacing is None


def test_without_a_template_study_and_frame_are_new_each_time(tmp_path):
    hu = np.random.default_rng(0).integers(-1000, 1000, (12, 14)).astype(np.float32)
    one, two = (pydicom.dcmread(write_dicom(hu, None, tmp_path / f"{k}.dcm", "x")) for k in range(2))
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"):
        assert one[name].value
        assert one[name].value != two[name].value


def test_the_window_spans_the_values(tmp_path, template):
    hu = np.linspace(-900, 1400, template.hu.size).reshape(template.hu.shape).astype(np.float32)
    ds = pydicom.dcmread(write_dicom(hu, template, tmp_path / "a.dcm", "x"))
    assert float(ds.WindowWidth) == pytest.approx(2300, abs=1)
    assert float(ds.WindowCenter) == pytest.approx(250, abs=1)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.full((128, 128), np.nan), "NaN"),
        (np.zeros((3, 128, 128)), "finite images"),
        (np.full((128, 128), 1e6), "do not fit"),
        (np.zeros((64, 64)), "make them equal"),
    ],
)
def test_refused_and_nothing_left(tmp_path, template, image, words):
    with pytest.raises(ImageError, match=words):
        write_dicom(image, template, tmp_path / "a.dcm", "x")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place(tmp_path, template):
    with pytest.raises(ImageError, match="cannot be written"):
        write_dicom(np.zeros(template.shape), template, tmp_path / "missing" / "a.dcm", "x")
    memory = CTSlice(np.zeros((8, 8), np.float32), np.ones((8, 8), bool))
    with pytest.raises(ImageError, match="came from no file"):
        write_dicom(np.zeros((8, 8)), memory, tmp_path / "a.dcm", "x")


def test_what_a_template_breaks_is_said_and_nothing_is_left(tmp_path, template, monkeypatch):
    def fail(*_, **__):
        raise ValueError("odd element")

    monkeypatch.setattr("pydicom.dataset.Dataset.save_as", fail)
    with pytest.raises(ImageError, match=r"cannot be written with this template \(odd element\)"):
        write_dicom(np.zeros(template.shape), template, tmp_path / "a.dcm", "x")
    assert list(tmp_path.iterdir()) == []
