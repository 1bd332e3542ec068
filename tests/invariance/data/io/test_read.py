"""Folders, series and what is told about them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import default_slice, find_series, inspect, read

from .files import dicom, save


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
