"""DICOM: right to the last unit, or refused with a line that helps."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import inspect, read
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from .files import ENHANCED, dicom, save


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

    @pytest.mark.parametrize("spacing", [[0.0, 0.8], [0.7, 0.0], [-0.7, 0.8]])
    def test_a_spacing_that_is_no_length_is_none(self, tmp_path, stored, spacing):
        (found,) = read(save(dicom(stored, PixelSpacing=spacing), tmp_path / "a.dcm"))
        assert found.spacing is None

    def test_a_missing_number_of_samples_is_one(self, tmp_path, stored):
        """pydicom cannot decode without it, so the file is refused, but as broken, not as colour."""
        file = save(dicom(stored, SamplesPerPixel=None), tmp_path / "a.dcm")
        with pytest.raises(ImageError, match="cut off or corrupt"):
            read(file)

    def test_rle(self, tmp_path, stored):
        ds = dicom(stored)
        ds.compress(RLELossless)
        np.testing.assert_array_equal(
            read(save(ds, tmp_path / "a.dcm"))[0].hu, stored.astype(np.float32) - 1024
        )


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

    def test_frames_at_the_same_places_are_phases(self, tmp_path, stored):
        ds = self.enhanced(np.stack([stored] * 6))
        for i, own in enumerate(ds.PerFrameFunctionalGroupsSequence):
            own.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.0 * (i // 2)]
        path = save(ds, tmp_path / "e.dcm")
        assert [s.meta["frame"] for s in read(path)] == [0, 2, 4, 1, 3, 5]
        (row,) = inspect(path)["series"]
        assert row["slice_distance"] == 2.0
        assert row["note"] == "2 phases at the same places, as the order of the frames tells"

    def test_frames_at_one_place_have_no_distance(self, tmp_path, stored):
        ds = self.enhanced(np.stack([stored] * 3))
        for own in ds.PerFrameFunctionalGroupsSequence:
            own.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5.0]
        path = save(ds, tmp_path / "e.dcm")
        assert [s.meta["frame"] for s in read(path)] == [0, 1, 2]
        (row,) = inspect(path)["series"]
        assert row["slice_distance"] is None
        assert row["note"] == "all slices lie at the same place"


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
