"""DICOM out: bit for bit, at the source's place, nothing of the patient that the source does not hold."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance import Explanation
from ctinv.invariance.audit.record import Audit
from ctinv.invariance.data import CTSlice, default_slice, read
from ctinv.invariance.reporting.dicom import dicom_files
from ctinv.invariance.reporting.provenance import Provenance
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

_rng = np.random.default_rng(3)
MAPS = ("std", "std_noise", "reading_error")


def noise(shape, scale=20.0):
    return _rng.normal(0, scale, shape).astype(np.float32)


def analysis(image):
    x = image.hu
    return Explanation(
        x=x,
        denoised=x + noise(x.shape),
        reconstruction=x + noise(x.shape),
        samples=x + noise((2, *x.shape)),
        mean=x,
        std=np.abs(noise(x.shape)),
        std_noise=np.abs(noise(x.shape)),
        reading=x + noise(x.shape),
        audit=Audit(verdict=("conv7 hides between 1.4 and 7.1 HU.",)),
        meta=Provenance(model="yang", layer="conv7", model_hash="0123456789abcdef" * 4),
    )


def in_memory(image, **changes):
    return replace(image, source=None, meta={}, **changes)


def enhanced(tmp_path):
    """The second frame of a multi-frame CT that is turned and off centre."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = 2
    dataset.PixelData = dataset.PixelData * 2
    turn, measures = Dataset(), Dataset()
    turn.ImageOrientationPatient, measures.PixelSpacing = [0.8, 0.6, 0, -0.6, 0.8, 0], [0.5, 0.7]
    shared, frames = Dataset(), [Dataset(), Dataset()]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [turn], [measures]
    for row, frame in enumerate(frames):
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [12.5, -40.25, 3.0 + row]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
        del dataset[keyword]
    dataset.save_as(tmp_path / "enhanced.dcm")
    (found,) = [one for one in read(tmp_path / "enhanced.dcm") if one.meta["frame"] == 1]
    assert found.position == (12.5, -40.25, 4.0)
    return found


@pytest.fixture(scope="module")
def source():
    return default_slice()


@pytest.fixture(scope="module")
def found(source):
    return analysis(source)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, source, found):
    out = tmp_path_factory.mktemp("dicom")
    found.save(out, formats=["dicom"], template=source)
    return out


def test_what_is_written(folder):
    names = {path.name for path in folder.glob("*.dcm")}
    images = {"sample-01", "sample-02", "reconstruction", "denoised", "reading"}
    assert names == {f"{name}.dcm" for name in {*images, *MAPS}}
    assert (folder / "result.json").exists()


def test_maps_come_back_bit_for_bit(folder, found):
    stored = np.load(folder / "arrays.npz")
    for name, values in (
        ("std", stored["std"]),
        ("std_noise", stored["std_noise"]),
        ("reading_error", np.abs(stored["x"] - stored["reading"])),
    ):
        made = pydicom.dcmread(folder / f"{name}.dcm")
        assert made.pixel_array.dtype == np.float32
        assert made.pixel_array.tobytes() == values.tobytes(), name


def test_images_come_back_to_the_rounding_that_they_state(folder, found):
    for name, hu in (("sample-02", found.samples[1]), ("reading", found.reading)):
        made = pydicom.dcmread(folder / f"{name}.dcm")
        step = float(made.RescaleSlope)
        assert step <= 0.1
        np.testing.assert_array_equal(made.pixel_array, np.rint(hu.astype(float) / step))
        assert np.abs(read(folder / f"{name}.dcm")[0].hu - hu).max() <= step / 2 + 1e-3


def test_a_map_says_what_it_is(folder):
    made = pydicom.dcmread(folder / "std.dcm")
    (mapping,) = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    unit = mapping.MeasurementUnitsCodeSequence[0]
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("[hnsf'U]", "UCUM")
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    texts = [str(item.TextValue) for item in mapping.QuantityDefinitionSequence if item.ValueType == "TEXT"]
    assert "conv7 of yang" in texts[0]
    assert made.SoftwareVersions == texts[1]
    assert made.DeviceSerialNumber == "0123456789abcdef"
    (derivation,) = made.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence
    assert derivation.DerivationDescription == "conv7 hides between 1.4 and 7.1 HU."


def test_synthetic_images_say_so(folder):
    for name in ("sample-01", "sample-02", "reconstruction", "reading"):
        made = pydicom.dcmread(folder / f"{name}.dcm")
        assert list(made.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert made.ImageType[-1] == "SYNTHETIC"
        assert made.SeriesDescription.startswith("SYNTHETIC")
        assert made.DerivationDescription.startswith("SYNTHETIC")
    assert "SYNTHETIC" not in pydicom.dcmread(folder / "denoised.dcm").ImageType


def test_identities_are_new_and_samples_share_a_series(folder, source):
    made = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    original = pydicom.dcmread(source.source)
    instances = {d.SOPInstanceUID for d in made}
    assert len(instances) == len(made)
    assert original.SOPInstanceUID not in instances
    assert original.SeriesInstanceUID not in {d.SeriesInstanceUID for d in made}
    series = {
        name: pydicom.dcmread(folder / f"{name}.dcm").SeriesInstanceUID
        for name in ("sample-01", "sample-02", "reading", *MAPS)
    }
    assert series["sample-01"] == series["sample-02"] != series["reading"]
    assert len({series[name] for name in MAPS}) == 1


def place(dataset):
    """Geometry and references of a file, wherever they stand in it."""
    if "PerFrameFunctionalGroupsSequence" in dataset:
        own, shared = dataset.PerFrameFunctionalGroupsSequence[0], dataset.SharedFunctionalGroupsSequence[0]
        position = own.PlanePositionSequence[0].ImagePositionPatient
        orientation = (own if "PlaneOrientationSequence" in own else shared).PlaneOrientationSequence[0]
        measures = (own if "PixelMeasuresSequence" in own else shared).PixelMeasuresSequence[0]
        named = own.DerivationImageSequence[0].SourceImageSequence[0]
        orientation, spacing = orientation.ImageOrientationPatient, measures.PixelSpacing
    else:
        position, orientation = dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        spacing, named = dataset.PixelSpacing, dataset.SourceImageSequence[0]
    return position, orientation, spacing, named


@pytest.mark.parametrize("kind", ["classic", "frame"])
def test_it_lies_exactly_over_the_source(tmp_path, source, kind):
    image = source if kind == "classic" else enhanced(tmp_path)
    original = pydicom.dcmread(image.source)
    for name, content in dicom_files(analysis(image), image).items():
        made = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
        position, orientation, spacing, named = place(made)
        np.testing.assert_allclose(position, image.position, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(orientation, image.orientation, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(spacing, image.spacing, rtol=1e-6, err_msg=name)
        assert made.FrameOfReferenceUID == original.FrameOfReferenceUID
        assert made.StudyInstanceUID == original.StudyInstanceUID
        assert (made.Rows, made.Columns) == image.shape
        assert named.ReferencedSOPInstanceUID == original.SOPInstanceUID
        assert named.ReferencedSOPClassUID == original.SOPClassUID
        assert named.get("ReferencedFrameNumber") == (2 if kind == "frame" else None)


def words(dataset, found=None):
    """Every text of the patient's or the study's groups, at any depth, by keyword."""
    found = {} if found is None else found
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                words(item, found)
        elif element.tag.group == 0x0010 or element.keyword in ("StudyDescription", "StudyID"):
            found.setdefault(element.keyword, set()).add(str(element.value))
    return found


def test_nothing_of_the_patient_that_the_source_does_not_hold(folder, source):
    original = words(pydicom.dcmread(source.source))
    for path in folder.glob("*.dcm"):
        for keyword, values in words(pydicom.dcmread(path)).items():
            assert values <= original.get(keyword, set()) | {"", "None"}, (path.name, keyword)


def test_identity_is_left_out_where_that_is_asked(source, found):
    original = pydicom.dcmread(source.source)
    told = {str(original[k].value) for k in ("PatientName", "PatientID", "StudyID", "InstitutionName")}
    uids = {str(original[k].value) for k in ("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")}
    for name, content in dicom_files(found, source, deidentify=True).items():
        text = str(pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)))
        assert [word for word in told | uids if word in text] == [], name


def test_no_path_and_no_file_name_is_written(folder, source):
    for path in folder.glob("*.dcm"):
        content = path.read_bytes()
        assert source.source.name.encode() not in content
        assert str(source.source.parent).encode() not in content


def test_a_slice_without_a_file_keeps_its_place(source):
    image = in_memory(source)
    for name, content in dicom_files(analysis(image), image).items():
        made = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
        assert not made.PatientName
        assert "SourceImageSequence" not in made
        if name == "std.dcm":
            own = made.PerFrameFunctionalGroupsSequence[0]
            assert list(own.PlanePositionSequence[0].ImagePositionPatient) == list(image.position)
            assert "DerivationImageSequence" not in own


def test_what_cannot_be_written_is_refused_and_nothing_is_left(tmp_path, source, found, monkeypatch):
    with pytest.raises(CtinvError, match="choose one of: dicom"):
        found.save(tmp_path / "out", formats=["nifti"], template=source)
    with pytest.raises(CtinvError, match="give it as template"):
        found.save(tmp_path / "out", formats=["dicom"])
    flat = CTSlice(source.hu, source.valid)
    with pytest.raises(ImageError, match="pixel spacing"):
        found.save(tmp_path / "out", formats=["dicom"], template=flat)
    small = replace(source, hu=source.hu[:64], valid=source.valid[:64])
    with pytest.raises(ImageError, match="make them equal"):
        dicom_files(analysis(small), small)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(ImageError, match=r"ctinv\[dicom\]"):
        found.save(tmp_path / "out", formats=["dicom"], template=source)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian's dicom3tools) is not there")
@pytest.mark.parametrize("kind", ["file", "memory", "frame", "lung", "place unknown", "anonymous"])
def test_the_validator_finds_no_error(tmp_path, source, kind):
    image = source
    if kind == "memory":
        image = in_memory(source)
    elif kind == "place unknown":
        image = in_memory(source, position=None, orientation=None)
    elif kind == "frame":
        image = enhanced(tmp_path)
    elif kind == "lung":
        dataset = pydicom.dcmread(source.source)
        dataset.BodyPartExamined = "LUNG"
        del dataset.Laterality
        dataset.save_as(tmp_path / "lung.dcm")
        (image,) = read(tmp_path / "lung.dcm")
    for name, content in dicom_files(analysis(image), image, deidentify=kind == "anonymous").items():
        path = tmp_path / name
        path.write_bytes(content)
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in (told.stdout + told.stderr).splitlines() if "Error" in line] == [], name
