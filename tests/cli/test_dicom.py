"""``--format dicom`` on analyze and sample: what is written, said and refused."""

import numpy as np
import pydicom
import pytest
from ctinv.invariance.data import default_slice


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes longest, and is tested elsewhere."""
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.figure_png", lambda _: b"no picture")
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.report_html", lambda *_, **__: "no page")


def test_maps_and_samples_are_written_and_what_tags_hold_is_said(run, fits, tmp_path):
    asked = ("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "--samples", 3)
    result = run(*asked, "--format", "dicom")
    assert result.code == 0
    assert "--deidentify" in result.err
    assert len(list(tmp_path.glob("sample-*.dcm"))) == 3
    stored = np.load(tmp_path / "arrays.npz")
    assert pydicom.dcmread(tmp_path / "std.dcm").pixel_array.tobytes() == stored["std"].tobytes()
    assert (
        pydicom.dcmread(tmp_path / "std.dcm").PatientID == pydicom.dcmread(default_slice().source).PatientID
    )


def test_a_folder_without_dicom_is_not_taken_for_one_with_it(run, fits, tmp_path):
    asked = ("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "--samples", 3)
    assert run(*asked).code == 0
    assert not list(tmp_path.glob("*.dcm"))
    assert run(*asked, "--format", "dicom").code == 0
    assert (tmp_path / "std.dcm").exists()


def test_the_patient_is_left_out_where_that_is_asked(run, fits, tmp_path):
    result = run(
        "analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "-n", 3, "--format", "dicom", "--deidentify"
    )
    assert result.code == 0
    assert "patient" not in result.err
    for path in tmp_path.glob("*.dcm"):
        assert not pydicom.dcmread(path).PatientID


def test_a_slice_without_spacing_is_refused_before_the_fit(run, fits, tmp_path):
    np.save(tmp_path / "a.npy", np.full((32, 32), -50.0, np.float32))
    result = run(
        "analyze", "-m", "chen", "-l", "conv1", "-i", tmp_path / "a.npy", "-o", tmp_path / "out",
        "--format", "dicom",
    )  # fmt: skip
    assert result.code == 2
    assert "pixel spacing" in result.err
    assert fits == []
    assert not (tmp_path / "out").exists()
