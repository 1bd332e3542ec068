"""Reading CT: right to the last unit, or refused with a line that helps."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import OUTSIDE_HU, default_slice, find_series, inspect, read
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def dicom(stored, *, syntax=ExplicitVRLittleEndian, meta=True, **tags):
    """A small CT data set whose stored values are ``stored``; tags set to None are left out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = CT
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "SeriesDescription": "Abdomen",
        "PatientID": "P1",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [0.7, 0.8],
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
    } | tags
    for name, value in values.items():
        if value is not None:
            setattr(ds, name, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.add_new(0x7FE00010, "OW", stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if not meta:
        del ds.file_meta
    return ds


def save(ds, path, syntax=ExplicitVRLittleEndian):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(ds, "file_meta"):
            ds.save_as(path, enforce_file_format=True)
        else:
            implicit = syntax == ImplicitVRLittleEndian
            little = syntax != ExplicitVRBigEndian
            ds.save_as(path, implicit_vr=implicit, little_endian=little)
    return path


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(100, 2000, (16, 20)).astype(np.uint16)


class TestValues:
    @pytest.mark.parametrize("kind", [np.uint16, np.int16])
    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
    def test_syntax_and_sign(self, tmp_path, stored, kind, syntax):
        values = stored.astype(kind) - kind(50)
        file = save(dicom(values, syntax=syntax), tmp_path / "a.dcm")
        (found,) = read(file)
        assert found.hu.dtype == np.float32
        np.testing.assert_array_equal(found.hu, values.astype(np.float32) - 1024)
        assert found.valid.all()
        assert found.spacing == (0.7, 0.8)
        assert found.meta["patient"] == "P1"

    @pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    def test_without_file_meta(self, tmp_path, stored, syntax):
        ds = dicom(stored, meta=False)
        file = save(ds, tmp_path / "bare.dcm", syntax)
        np.testing.assert_array_equal(read(file)[0].hu, stored.astype(np.float32) - 1024)

    @pytest.mark.parametrize(("slope", "intercept"), [("2", "-1000"), ("0.5", "0"), ("1.000244", "-1024.5")])
    def test_D05_rescale(self, tmp_path, stored, slope, intercept):
        file = save(dicom(stored, RescaleSlope=slope, RescaleIntercept=intercept), tmp_path / "a.dcm")
        expected = stored.astype(np.float64) * float(slope) + float(intercept)
        np.testing.assert_array_equal(read(file)[0].hu, expected.astype(np.float32))

    def test_rescale_differs_per_slice(self, tmp_path, stored):
        for i, slope in enumerate((1, 2, 3)):
            ds = dicom(stored, RescaleSlope=str(slope), ImagePositionPatient=[0, 0, float(i)])
            save(ds, tmp_path / f"{i}.dcm")
        for i, found in enumerate(read(tmp_path)):
            np.testing.assert_array_equal(found.hu, stored.astype(np.float32) * (i + 1) - 1024)

    def test_monochrome1_has_the_same_hu(self, tmp_path, stored):
        file = save(dicom(stored, PhotometricInterpretation="MONOCHROME1"), tmp_path / "a.dcm")
        np.testing.assert_array_equal(read(file)[0].hu, stored.astype(np.float32) - 1024)

    def test_modality_lut(self, tmp_path):
        stored = np.arange(320, dtype=np.uint16).reshape(16, 20) % 8
        table = Dataset()
        table.LUTDescriptor = [8, 0, 16]
        table.add_new(0x00283006, "US", [0, 10, 20, 40, 80, 160, 320, 640])
        table.ModalityLUTType = "HU"
        ds = dicom(stored, RescaleSlope=None, RescaleIntercept=None, ModalityLUTSequence=[table])
        found = read(save(ds, tmp_path / "a.dcm"))[0]
        np.testing.assert_array_equal(found.hu, np.array(table.LUTData, np.float32)[stored])

    @pytest.mark.parametrize("signed", [False, True])
    def test_overlay_bits_are_left_out(self, tmp_path, stored, signed):
        values = stored.astype(np.int32) - 1500 * signed
        marked = ((values & 0x0FFF) | 0x8000).astype(np.uint16)
        ds = dicom(marked.view(np.int16) if signed else marked, BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(read(save(ds, tmp_path / "a.dcm"))[0].hu, values - np.float32(1024))

    def test_rle(self, tmp_path, stored):
        ds = dicom(stored)
        ds.compress(RLELossless)
        np.testing.assert_array_equal(
            read(save(ds, tmp_path / "a.dcm"))[0].hu, stored.astype(np.float32) - 1024
        )


class TestOutside:
    @pytest.mark.parametrize("declared", [-2000, 63536])
    def test_D05_padding_even_when_its_sign_is_lost(self, tmp_path, stored, declared):
        values = stored.astype(np.int16)
        values[5:8, 5:8] = -2000
        ds = dicom(values)
        ds.add_new(0x00280120, "US" if declared > 0 else "SS", declared)
        found = read(save(ds, tmp_path / "a.dcm"))[0]
        np.testing.assert_array_equal(found.valid, values != -2000)
        assert (found.hu[5:8, 5:8] == OUTSIDE_HU).all()

    def test_D05_padding_range(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[:2], values[2:4] = -2000, -1990
        ds = dicom(values)
        ds.add_new(0x00280120, "SS", -2000)
        ds.add_new(0x00280121, "SS", -1985)
        assert read(save(ds, tmp_path / "a.dcm"))[0].valid.sum() == values[4:].size

    def test_undeclared_fill_below_air(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[:, :2] = values[:, -2:] = -1024  # -2048 HU, as some scanners write outside the circle
        found = read(save(dicom(values), tmp_path / "a.dcm"))[0]
        assert found.valid.sum() == values[:, 2:-2].size

    def test_noise_below_air_is_a_measurement(self, tmp_path, stored):
        values = stored.astype(np.int16)
        values[5, 5] = -60
        found = read(save(dicom(values), tmp_path / "a.dcm"))[0]
        assert found.valid.all()
        assert found.hu[5, 5] == -1084

    def test_clipped_air_counts_only_outside_a_uniform_circle(self, tmp_path):
        values = np.full((64, 64), 1024, np.uint16)
        rows, columns = np.mgrid[:64, :64] - 31.5
        beyond = np.hypot(rows, columns) > 32
        values[beyond] = 0
        values[30:34, 30:34] = 0  # air inside
        assert (read(save(dicom(values), tmp_path / "a.dcm"))[0].valid == ~beyond).all()
        values[:, :10] = 900  # the table reaches the corner: no circle was cut
        assert read(save(dicom(values), tmp_path / "b.dcm"))[0].valid.all()

    def test_only_padding_is_refused(self, tmp_path):
        ds = dicom(np.full((16, 16), -2000, np.int16))
        ds.add_new(0x00280120, "SS", -2000)
        with pytest.raises(ImageError, match="no measured pixel"):
            read(save(ds, tmp_path / "a.dcm"))


class TestFolders:
    def test_sorted_by_position_not_by_name(self, tmp_path, stored):
        for name, z in (("a", 30.0), ("b", 10.0), ("c", 20.0)):
            save(dicom(stored, ImagePositionPatient=[0, 0, z]), tmp_path / f"{name}.dcm")
        assert [s.position[2] for s in read(tmp_path)] == [10.0, 20.0, 30.0]

    def test_sorted_along_the_normal_of_tilted_slices(self, tmp_path, stored):
        tilt = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0]  # coronal: the normal is +y
        for name, y in (("a", 5.0), ("b", -5.0)):
            ds = dicom(stored, ImagePositionPatient=[0, y, 100 - y], ImageOrientationPatient=tilt)
            save(ds, tmp_path / name)
        assert [s.position[1] for s in read(tmp_path)] == [-5.0, 5.0]

    def test_sorted_by_number_without_positions(self, tmp_path, stored):
        for name, number in (("1", 10), ("2", 9)):
            ds = dicom(stored, ImagePositionPatient=None, InstanceNumber=number)
            save(ds, tmp_path / name)
        assert [s.meta["instance"] for s in read(tmp_path)] == [9, 10]

    def test_several_series_are_listed_not_mixed(self, tmp_path, stored):
        for i, text in enumerate(("Arterial", "Venous")):
            (tmp_path / text).mkdir()
            ds = dicom(
                stored + np.uint16(i), SeriesInstanceUID=f"1.{i}", SeriesDescription=text, SeriesNumber=i + 4
            )
            save(ds, tmp_path / text / "x.dcm")
        with pytest.raises(ImageError, match=r"2 series.*series=.*Arterial.*Venous"):
            read(tmp_path)
        for pick in ("Venous", "Ven", "5", "1.1"):
            np.testing.assert_array_equal(read(tmp_path, series=pick)[0].hu, stored + np.float32(1 - 1024))
        with pytest.raises(ImageError, match="no series answer to series='Bone'"):
            read(tmp_path, series="Bone")

    def test_other_files_are_left_out_with_a_reason(self, tmp_path, stored):
        save(dicom(stored), tmp_path / "a.dcm")
        save(dicom(stored, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "scout.dcm")
        save(dicom(stored, Modality="MR"), tmp_path / "mr.dcm")
        (tmp_path / "notes.txt").write_text("hello")
        (tmp_path / ".DS_Store").write_text("x")
        assert len(read(tmp_path)) == 1
        reasons = {file.name: why for file, why in find_series(tmp_path).skipped}
        assert set(reasons) == {"scout.dcm", "mr.dcm", "notes.txt"}
        assert "is MR, not CT" in reasons["mr.dcm"]

    def test_the_same_image_twice_counts_once(self, tmp_path, stored):
        ds = dicom(stored)
        save(ds, tmp_path / "a.dcm")
        save(ds, tmp_path / "copy.dcm")
        assert len(read(tmp_path)) == 1

    def test_progress(self, tmp_path, stored):
        save(dicom(stored), tmp_path / "a.dcm")
        seen = []
        read(tmp_path, progress=lambda *step: seen.append(step))
        assert seen == [("reading", 1, 1)]


class TestMultiFrame:
    def enhanced(self, frames):
        ds = dicom(
            frames,
            SOPClassUID=ENHANCED,
            NumberOfFrames=len(frames),
            RescaleSlope=None,
            RescaleIntercept=None,
            PixelSpacing=None,
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
        )
        shared = Dataset()
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.6]
        shared.PlaneOrientationSequence = [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.SharedFunctionalGroupsSequence = [shared]
        ds.PerFrameFunctionalGroupsSequence = []
        for i in range(len(frames)):
            own = Dataset()
            own.PlanePositionSequence = [Dataset()]
            own.PlanePositionSequence[0].ImagePositionPatient = [0, 0, float(-i)]
            own.PixelValueTransformationSequence = [Dataset()]
            own.PixelValueTransformationSequence[0].RescaleSlope = str(i + 1)
            own.PixelValueTransformationSequence[0].RescaleIntercept = str(-1000 - i)
            own.PixelValueTransformationSequence[0].RescaleType = "HU"
            ds.PerFrameFunctionalGroupsSequence.append(own)
        return ds

    def test_each_frame_has_its_own_rescale_and_place(self, tmp_path, stored):
        frames = np.stack([stored, stored + np.uint16(7), stored + np.uint16(9)])
        slices = read(save(self.enhanced(frames), tmp_path / "e.dcm"))
        assert [s.meta["frame"] for s in slices] == [2, 1, 0]  # the last frame lies lowest
        for found in slices:
            i = found.meta["frame"]
            np.testing.assert_array_equal(found.hu, frames[i].astype(np.float32) * (i + 1) - 1000 - i)
            assert found.spacing == (0.5, 0.6)
            assert found.position == (0.0, 0.0, float(-i))


class TestRefused:
    @pytest.mark.parametrize(
        ("tags", "words"),
        [
            ({"Modality": "MR"}, "is MR, not CT"),
            ({"Modality": "US"}, "is US, not CT"),
            ({"Modality": "SEG"}, "is SEG, not CT"),
            ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "unknown modality"),
            ({"RescaleSlope": None, "RescaleIntercept": None}, "no rescale slope"),
            ({"RescaleType": "MGML"}, "MGML, not HU"),
            ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "scout view"),
        ],
    )
    def test_not_a_ct_slice(self, tmp_path, stored, tags, words):
        file = save(dicom(stored, **tags), tmp_path / "a.dcm")
        with pytest.raises(ImageError, match=words) as caught:
            read(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_colour(self, tmp_path):
        rgb = np.zeros((8, 8, 3), np.uint8)
        ds = dicom(
            np.zeros((8, 8), np.uint16),
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelRepresentation=0,
        )
        ds.add_new(0x7FE00010, "OB", rgb.tobytes())
        with pytest.raises(ImageError, match="RGB picture"):
            read(save(ds, tmp_path / "a.dcm"))

    def test_cut_off_anywhere(self, tmp_path, stored):
        whole = save(dicom(stored), tmp_path / "a.dcm").read_bytes()
        for keep in (len(whole) - 10, len(whole) - 400, 600, 200, 40):
            cut = tmp_path / "cut.dcm"
            cut.write_bytes(whole[:keep])
            with pytest.raises(ImageError):
                read(cut)

    def test_unknown_compression_names_the_extra(self, tmp_path, stored, monkeypatch):
        file = save(dicom(stored), tmp_path / "a.dcm")

        def missing(self):
            raise RuntimeError("Unable to decompress: all plugins are missing dependencies")

        monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(missing))
        with pytest.raises(ImageError, match=r"compressed.*pip install 'ctinv\[dicom\]'"):
            read(file)

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("page.dcm", b"<!DOCTYPE html><html>", "a web page"),
            ("none.dcm", b"", "but empty"),
            ("junk.dcm", bytes(range(256)) * 4, "not a DICOM file"),
            ("photo.png", b"\x89PNG", "picture without HU"),
            ("bare.raw", b"1234", "give the .mhd"),
        ],
    )
    def test_not_an_image(self, tmp_path, name, content, words):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=words):
            read(tmp_path / name)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(ImageError, match="does not exist"):
            read(tmp_path / "missing.dcm")
        with pytest.raises(ImageError, match="is empty"):
            read(tmp_path)
        (tmp_path / "a.txt").write_text("x")
        with pytest.raises(ImageError, match="no CT slice among 1 files"):
            read(tmp_path)


class TestArrays:
    def test_npy(self, tmp_path):
        hu = np.random.default_rng(0).normal(0, 100, (3, 12, 14))
        np.save(tmp_path / "a.npy", hu)
        found = read(tmp_path / "a.npy")
        np.testing.assert_array_equal([s.hu for s in found], hu.astype(np.float32))
        np.save(tmp_path / "b.npy", hu[0].astype(np.int16) + 1024)
        np.testing.assert_array_equal(read(tmp_path / "b.npy", offset=1024)[0].hu, hu[0].astype(np.int16))

    def test_folder_of_npy_is_one_series_in_natural_order(self, tmp_path):
        for i in (10, 9, 1):
            np.save(tmp_path / f"s{i}.npy", np.full((12, 12), float(-i)))
        assert [s.hu[0, 0] for s in read(tmp_path)] == [-1, -9, -10]

    @pytest.mark.parametrize(
        ("array", "words"),
        [
            (np.array([[np.nan, 1.0]]), "NaN or infinity"),
            (np.array([[np.inf, 1.0]]), "NaN or infinity"),
            (np.zeros((2, 2), complex), "complex128"),
            (np.zeros(5), r"shape \(5,\)"),
            (np.zeros((9, 9, 3)), "colour"),
            (np.zeros((0, 4)), "shape"),
            (np.linspace(0, 1, 16).reshape(4, 4), "not HU"),
            (np.array(["a"]), "<U1"),
        ],
    )
    def test_refused_npy(self, tmp_path, array, words):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ImageError, match=words):
            read(tmp_path / "a.npy")

    def test_pickles_are_never_opened(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{"x": 1}]), allow_pickle=True)
        with pytest.raises(ImageError, match=r"not a usable \.npy"):
            read(tmp_path / "a.npy")
        (tmp_path / "b.npy").write_bytes(b"not numpy")
        with pytest.raises(ImageError, match=r"not a usable \.npy"):
            read(tmp_path / "b.npy")

    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("local", [False, True])
    def test_metaimage(self, tmp_path, big, local):
        hu = np.random.default_rng(0).integers(-1000, 1000, (2, 5, 7)).astype(">i2" if big else "<i2")
        header = (
            "NDims = 3\nDimSize = 7 5 2\nElementSpacing = 0.5 0.6 2\nElementType = MET_SHORT\n"
            f"BinaryDataByteOrderMSB = {big}\nElementDataFile = {'LOCAL' if local else 'a.raw'}\n"
        )
        (tmp_path / "a.mhd").write_bytes(header.encode() + (hu.tobytes() if local else b""))
        (tmp_path / "a.raw").write_bytes(hu.tobytes())
        found = read(tmp_path / "a.mhd")
        np.testing.assert_array_equal([s.hu for s in found], hu.astype(np.float32))
        assert found[1].spacing == (0.6, 0.5)
        assert found[1].height - found[0].height == 2.0

    def test_metaimage_that_does_not_add_up(self, tmp_path):
        head = "NDims = 2\nDimSize = 7 5\nElementType = MET_SHORT\nElementDataFile = {}"
        (tmp_path / "a.mhd").write_text(head.format("a.raw"))
        with pytest.raises(ImageError, match=r"needs a\.raw beside it"):
            read(tmp_path / "a.mhd")
        (tmp_path / "a.raw").write_bytes(b"12")
        with pytest.raises(ImageError, match="70 bytes, but has 2"):
            read(tmp_path / "a.mhd")
        (tmp_path / "b.mhd").write_text("hello")
        with pytest.raises(ImageError, match="no dimsize"):
            read(tmp_path / "b.mhd")

    def test_tiff(self, tmp_path):
        tifffile = pytest.importorskip("tifffile")
        hu = np.random.default_rng(0).normal(0, 100, (12, 14)).astype(np.float32)
        tifffile.imwrite(tmp_path / "a.tif", hu)
        np.testing.assert_array_equal(read(tmp_path / "a.tif")[0].hu, hu)

    def test_nifti_shows_the_patient_as_dicom_does(self, tmp_path):
        nibabel = pytest.importorskip("nibabel")
        volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) - 100  # right, front, up
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.5, 0.6, 2.0, 1.0])), tmp_path / "a.nii.gz")
        found = read(tmp_path / "a.nii.gz")
        assert len(found) == 4
        assert found[0].spacing == pytest.approx((0.6, 0.5))
        assert found[0].hu[0, 0] == volume[1, 2, 0]  # the patient's right and front come first

    @pytest.mark.parametrize("name", ["nibabel", "tifffile"])
    def test_missing_reader_names_the_extra(self, tmp_path, monkeypatch, name):
        monkeypatch.setitem(sys.modules, name, None)
        file = tmp_path / {"nibabel": "a.nii", "tifffile": "a.tif"}[name]
        file.write_bytes(b"x")
        with pytest.raises(ImageError, match=r"pip install 'ctinv\[formats\]'"):
            read(file)


class TestInspect:
    def test_is_json_and_right(self, tmp_path, stored):
        for i in range(3):
            ds = dicom(stored, ImagePositionPatient=[0, 0, 2.5 * i], ConvolutionKernel="B30f", KVP="120")
            save(ds, tmp_path / f"{i}.dcm")
        (tmp_path / "x.txt").write_text("x")
        found = json.loads(json.dumps(inspect(tmp_path)))
        (row,) = found["series"]
        assert found["slices"] == row["slices"] == 3
        assert row["size"] == [16, 20]
        assert row["spacing"] == [0.7, 0.8]
        assert row["slice_distance"] == 2.5
        assert row["rescale"] == [[1.0, -1024.0]]
        assert row["transfer_syntax"] == ["Explicit VR Little Endian"]
        assert row["kernel"] == "B30f"
        assert row["kvp"] == 120
        assert row["hu_range"] == [float(stored.min()) - 1024, float(stored.max()) - 1024]
        assert "x.txt" in next(iter(found["skipped"]))

    def test_file(self, tmp_path, stored):
        file = save(dicom(stored), tmp_path / "a.dcm")
        assert inspect(file)["series"][0]["patient"] == "P1"
        with pytest.raises(ImageError, match="does not exist"):
            inspect(tmp_path / "b.dcm")

    def test_numbers_without_a_negative_are_remarked(self, tmp_path):
        np.save(tmp_path / "a.npy", np.full((12, 12), 1000.0))
        assert "offset" in inspect(tmp_path / "a.npy")["series"][0]["note"]


def test_default_slice_is_real_ct():
    found = default_slice()
    assert found.shape == (128, 128)
    assert found.meta["manufacturer"] == "GE MEDICAL SYSTEMS"
    assert (float(found.hu.min()), float(found.hu.max())) == (-896.0, 1167.0)


def test_import_stays_light():
    code = (
        "import sys, ctinv.invariance.data; "
        "print([m for m in ('torch', 'skimage', 'pydicom', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = [
    *[f"ct/tcga/{n}" for n in sorted(p.name for p in (DATA / "ct/tcga").glob("*.dcm"))],
    *[f"ct/dcmqi_ct3/{n:02d}.dcm" for n in (1, 2, 3)],
    "awkward/robyoung_pydicom_CT_small.dcm",
]
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data: real files are not checked")


def raw_values(file):
    """Stored values straight from the bytes, for uncompressed files."""
    ds = pydicom.dcmread(file)
    kind = "i2" if ds.PixelRepresentation else "u2"
    return ds, np.frombuffer(ds.PixelData, "<" + kind).reshape(ds.Rows, ds.Columns).astype(np.float64)


@needs_data
class TestRealFiles:
    @pytest.mark.parametrize("name", REAL)
    def test_hu_to_the_last_unit(self, name):
        ds, stored = raw_values(DATA / name)
        expected = stored * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        (found,) = read(DATA / name)
        np.testing.assert_array_equal(found.hu[found.valid], expected[found.valid].astype(np.float32))
        assert (found.hu[~found.valid] == OUTSIDE_HU).all()
        # What was taken out held one of the values that scanners write outside the circle.
        assert set(np.unique(stored[~found.valid])) <= {-2000.0, -1024.0, 0.0}
        assert found.hu.min() >= -1100

    def test_the_manifest_agrees(self):
        import csv

        with (DATA / "ct/tcga/manifest.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 40
        for row in rows:
            (found,) = read(DATA / "ct/tcga" / row["file"])
            assert float(found.hu.max()) == pytest.approx(float(row["HUmax"]), abs=1e-3)
            assert found.meta["patient"] == row["patient"]
            if float(row["HUmin"]) < -1100:
                assert 0.2 < 1 - found.valid.mean() < 0.23  # all outside the circle, 1 - pi / 4 = 0.215

    def test_jpeg2000_with_the_wrong_sign(self):
        from io import BytesIO

        from PIL import Image
        from pydicom.encaps import generate_frames

        file = DATA / "awkward/pydicom302_J2K_pixelrep_mismatch.dcm"
        ds = pydicom.dcmread(file)
        frame = next(generate_frames(ds.PixelData, number_of_frames=1))
        plain = np.asarray(Image.open(BytesIO(frame))).astype(np.int64) >> 3  # Pillow scales 13 bits to 16
        signed = np.where(plain >= 4096, plain - 8192, plain).astype(np.float32)  # 13 bits, two's complement
        (found,) = read(file)
        np.testing.assert_array_equal(found.hu[found.valid], signed[found.valid])
        assert set(np.unique(signed[~found.valid])) == {-2000.0}

    def test_jpeg_lossless_with_the_optional_decoders(self, tmp_path):
        pytest.importorskip("gdcm", reason="the extra 'dicom' is not installed: JPEG lossless is not checked")
        ds = pydicom.dcmread(DATA / "awkward/robyoung_pydicom_JPGLosslessP14SV1_1s_1f_8b.dcm")
        ds.Modality, ds.RescaleSlope, ds.RescaleIntercept = "CT", "1", "-100"
        (found,) = read(save(ds, tmp_path / "a.dcm"))
        assert (found.hu.min(), found.hu.max()) == (-100, 155)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("dcmqi_seg_liver.dcm", "is SEG, not CT"),
            ("dynamo_missing_external_data_dncnn_25.onnx", "not a DICOM file"),
            ("html_saved_as_dncnn.onnx", "not a DICOM file but a web page"),
            ("robyoung_pydicom_ExplVR_BigEnd.dcm", "is US, not CT"),
            ("robyoung_pydicom_ExplVR_LitEndNoMeta.dcm", "is RTPLAN, not CT"),
            ("robyoung_pydicom_JPEG2000.dcm", "is NM, not CT"),
            ("robyoung_pydicom_JPGLosslessP14SV1_1s_1f_8b.dcm", "is US, not CT"),
            ("robyoung_pydicom_MR_small.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_small_bigendian.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_small_padded.dcm", "is MR, not CT"),
            ("robyoung_pydicom_MR_truncated.dcm", "is MR, not CT"),
            ("robyoung_pydicom_OBXXXX1A_2frame.dcm", "is US, not CT"),
        ],
    )
    def test_refused(self, name, words):
        with pytest.raises(ImageError, match=words):
            read(DATA / "awkward" / name)

    def test_every_awkward_file_has_an_expectation(self):
        source = Path(__file__).read_text()
        assert [p.name for p in (DATA / "awkward").iterdir() if p.name not in source] == []

    def test_series_of_three(self):
        found = read(DATA / "ct/dcmqi_ct3")
        heights = [s.height for s in found]
        assert heights == sorted(heights)
        assert inspect(DATA / "ct/dcmqi_ct3")["series"][0]["slice_distance"] == pytest.approx(1.0)

    def test_metaimage_pattern(self):
        folder = DATA / "ct/lcd_ct_fbp/dose_100/signal_absent"
        found = read(folder / "signal_absent.mhd", offset=1000)
        assert len(found) == 10
        raw = np.frombuffer((folder / "signal_absent_004.raw").read_bytes(), "<i2").reshape(256, 256)
        np.testing.assert_array_equal(found[3].hu, raw.astype(np.float32) - 1000)
