"""Values that are not HU are refused or doubted; messy folders are read for what is good in them."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import fitting_set, inspect, load, read

from .files import dicom, save


def body(size=64, seed=0):
    """A made-up slice: air, a body, bone and fat, noise; HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    hu = np.full((size, size), -1000.0)
    hu[np.hypot(x, 1.3 * y) < 0.42 * size] = 40.0
    hu[np.hypot(x + 0.15 * size, y) < 0.08 * size] = 300.0
    return np.rint(hu + rng.normal(0, 10, hu.shape)).clip(-1020, 3000)


LABELS = (body() > -500).astype(np.uint8) * 3
OTHER = {
    "label map": LABELS,
    "label map as float": LABELS.astype(np.float32),
    "8-bit picture": ((body() + 1024) / 16).clip(0, 255).astype(np.uint8),
    "unit": ((body() + 1024) / 4096).astype(np.float32),
    "symmetric": ((body() + 1024) / 2048 - 1).astype(np.float32),
    "standardised": ((body() - body().mean()) / body().std()).astype(np.float32),
    "attenuation per mm": (0.0193 * (1 + body() / 1000)).astype(np.float32),
    "line integrals": (body() + 1024).cumsum(0).astype(np.float32) / 2e4,
}


@pytest.mark.parametrize("kind", OTHER)
def test_arrays_of_another_kind_are_refused(tmp_path, kind):
    np.save(tmp_path / "a.npy", OTHER[kind])
    with pytest.raises(ImageError, match="not HU"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize(("offset", "lowest"), [(1024, 4), (1000, 0), (32768, 31748)])
@pytest.mark.parametrize("kind", ["npy", "dcm"])
def test_lost_offsets_are_told_and_mended(tmp_path, offset, lowest, kind):
    hu = body().clip(lowest - offset)
    stored = (hu + offset).astype(np.uint16)
    np.save(tmp_path / "a.npy", stored)
    save(dicom(stored, RescaleIntercept="0"), tmp_path / "a.dcm")
    file = tmp_path / f"a.{kind}"
    (one,) = read(file)
    assert f"--offset {offset}" in one.meta["doubt"]
    assert f"--offset {offset}" in inspect(file)["series"][0]["note"]
    (one,) = read(file, offset=offset)
    np.testing.assert_array_equal(one.hu, hu)
    assert "doubt" not in one.meta


def test_an_offset_taken_off_twice(tmp_path):
    np.save(tmp_path / "a.npy", body() - 1024)
    assert "taken off twice" in read(tmp_path / "a.npy")[0].meta["doubt"]


def test_scale_comes_before_offset(tmp_path):
    np.save(tmp_path / "a.npy", (body() + 1024) / 4096)
    (one,) = read(tmp_path / "a.npy", scale=4096, offset=1024)
    np.testing.assert_allclose(one.hu, body(), atol=1e-3)


@pytest.mark.parametrize("size", [64, 128])
def test_true_hu_are_not_doubted(tmp_path, size):
    np.save(tmp_path / "a.npy", body(size))
    assert "doubt" not in read(tmp_path / "a.npy")[0].meta


STORED = (body() + 1024).astype(np.uint16)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"HighBit": 11}, "HighBit 11"),
        ({"BitsStored": 17, "HighBit": 16}, "BitsStored 17"),
        ({"RescaleSlope": "0"}, "slope 0"),
        ({"RescaleSlope": "-1"}, "slope -1"),
        ({"RescaleSlope": ["1", "2"]}, r"slope 1\\2"),
        ({"RescaleIntercept": ["-1024", "0"]}, r"intercept -1024\\0"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR picture"),
        ({"RescaleType": "Z_EFF"}, "Z_EFF, not HU"),
        ({"Units": "BQML"}, "BQML, not HU"),
        ({"SeriesDescription": "Iodine no Water[mg/ml]"}, "something else than HU"),
        ({"ImageType": ["DERIVED", "PRIMARY", "IODINE"]}, "something else than HU"),
        ({"SeriesDescription": "Z Effective"}, "something else than HU"),
        ({"SeriesDescription": "Full Dose Projection"}, "projections"),
        ({"RescaleSlope": "0.0001", "RescaleIntercept": "-0.05"}, "not HU"),
    ],
)
def test_dicom_that_is_not_hu_or_contradicts_itself(tmp_path, tags, words):
    file = save(dicom(STORED, **tags), tmp_path / "a.dcm")
    with pytest.raises(ImageError, match=words):
        read(file)


@pytest.mark.parametrize("text", ["Abdomen with iodine contrast", "VNC", "MonoE 70 keV", "Perfusion phase 1"])
def test_descriptions_of_true_ct_are_let_pass(tmp_path, text):
    assert len(read(save(dicom(STORED, SeriesDescription=text), tmp_path / "a.dcm"))) == 1


class TestPadding:
    def padded(self, tmp_path, inside=None, noise=15.0, **tags):
        hu = body(128)
        y, x = np.mgrid[:128, :128] - 63.5
        outside = np.hypot(x, y) > 64
        hu[outside] = -3024 + np.rint(np.random.default_rng(0).normal(0, noise, int(outside.sum())))
        if inside is not None:
            hu[60:64, 60:64] = inside
        ds = dicom(hu.astype(np.int16), RescaleIntercept="0", **tags)
        ds.add_new(0x00280120, "SS", -3024)
        return read(save(ds, tmp_path / "a.dcm"))[0], outside

    def test_blurred_by_lossy_compression(self, tmp_path):
        one, outside = self.padded(tmp_path, LossyImageCompression="01")
        np.testing.assert_array_equal(one.valid, ~outside)

    @pytest.mark.parametrize("inside", [-2990.0, -1500.0, 500.0])
    def test_near_padding_inside_the_body_is_measured(self, tmp_path, inside):
        one, outside = self.padded(tmp_path, inside, LossyImageCompression="01")
        np.testing.assert_array_equal(one.valid, ~outside)

    def test_a_padding_value_that_tissue_has_counts_at_the_border_alone(self, tmp_path):
        hu = body(64)
        hu[20:24, 20:24] = hu[:3] = 0
        ds = dicom(hu.astype(np.int16), RescaleIntercept="0")
        ds.add_new(0x00280120, "SS", 0)
        one = read(save(ds, tmp_path / "a.dcm"))[0]
        assert one.valid[20:24, 20:24].all()
        assert not one.valid[:3].any()


BAD = {
    "colour": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0},
    "no rescale": {"RescaleSlope": None, "RescaleIntercept": None},
    "derived": {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "no pixels": {},
    "cut off": {},
    "text": {},
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("same_series", [True, False])
def test_one_bad_file_is_left_out_and_the_rest_goes_on(tmp_path, kind, same_series):
    for i in range(3):
        save(
            dicom((body(seed=i) + 1024).astype(np.uint16), ImagePositionPatient=[0, 0, 2.0 * i]),
            tmp_path / f"{i}.dcm",
        )
    tags = BAD[kind] | ({} if same_series else {"SeriesInstanceUID": "1.9"})
    ds = dicom(STORED, ImagePositionPatient=[0, 0, 9.0], **tags)
    bad = tmp_path / "bad.dcm"
    if kind == "no pixels":
        del ds.PixelData
    save(ds, bad)
    if kind == "cut off":
        bad.write_bytes(bad.read_bytes()[:-400])
    if kind == "text":
        bad.write_text("hello")
    found = inspect(tmp_path)
    assert (found["slices"], list(found["skipped"])) == (3, [str(bad)])
    assert len(fitting_set(tmp_path)) == 3
    if same_series or kind != "cut off":  # a file that is only found to be cut off when it is read
        reading = load(tmp_path)
        assert [file for file, _ in reading.left_out] == [bad]
        assert len(reading.slices) == 3


def test_nothing_but_bad_files(tmp_path):
    save(dicom(STORED, **BAD["no rescale"]), tmp_path / "a.dcm")
    (tmp_path / "b.dcm").write_text("x")
    for look in (inspect, read, fitting_set):
        with pytest.raises(ImageError, match="no CT slice among 2 files"):
            look(tmp_path)


class TestSeries:
    def test_phases_are_told_apart_by_any_tag_or_by_order(self, tmp_path):
        for tag in ("AcquisitionNumber", "TriggerTime", "TemporalPositionIdentifier", None):
            folder = tmp_path / str(tag)
            folder.mkdir()
            for phase in (0, 1):
                for i in range(4):
                    stored = (body(seed=i + 9 * phase) + 1024).astype(np.uint16)
                    own = {tag: phase + 1} if tag else {}
                    ds = dicom(
                        stored, ImagePositionPatient=[0, 0, 5.0 * i], InstanceNumber=i + 4 * phase, **own
                    )
                    save(ds, folder / f"{phase}{i}.dcm")
            rows = inspect(folder)["series"]
            assert [(row["slices"], row["slice_distance"], row["note"]) for row in rows] == [
                (4, 5.0, None)
            ] * 2
            second = read(folder, series=rows[1]["key"])
            np.testing.assert_array_equal(second[0].hu, body(seed=9))

    def test_orientations_studies_and_patients_are_series_of_their_own(self, tmp_path):
        changes = (
            {},
            {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
            {"PatientID": "P2"},
            {"StudyInstanceUID": "9"},
        )
        for i, change in enumerate(changes):
            save(dicom(STORED + np.uint16(i), **change), tmp_path / f"{i}.dcm")
        assert len(inspect(tmp_path)["series"]) == 4

    def test_missing_and_uneven_slices_are_noted(self, tmp_path):
        for name, places in (("gap", (0, 2, 4, 10, 12)), ("uneven", (0, 2, 4.5, 6.5))):
            for i, z in enumerate(places):
                (tmp_path / name).mkdir(exist_ok=True)
                ds = dicom((body(seed=i) + 1024).astype(np.uint16), ImagePositionPatient=[0, 0, z])
                save(ds, tmp_path / name / f"{i}.dcm")
        assert "2 slices seem to be missing" in inspect(tmp_path / "gap")["series"][0]["note"]
        assert "unevenly" in inspect(tmp_path / "uneven")["series"][0]["note"]

    def test_equal_sop_uids_with_different_pixels_are_kept(self, tmp_path):
        for i in range(3):
            ds = dicom(
                (body(seed=i) + 1024).astype(np.uint16), SOPInstanceUID="1.2", ImagePositionPatient=[0, 0, i]
            )
            save(ds, tmp_path / f"{i}.dcm")
        assert inspect(tmp_path)["series"][0]["slices"] == 3

    def test_classic_frames_have_no_places_of_their_own(self, tmp_path):
        frames = np.stack([STORED, STORED + 1])
        save(dicom(frames, NumberOfFrames=2), tmp_path / "a.dcm")
        row = inspect(tmp_path / "a.dcm")["series"][0]
        assert (row["slices"], row["slice_distance"]) == (2, None)
        assert "where its frames lie" in row["note"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.zip", "archive"), ("a.hdr", "Analyze"), ("a.mgz", "not read"), ("a.h5", "not read")],
)
def test_formats_that_are_not_read_are_named(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x" * 200)
    with pytest.raises(ImageError, match=words):
        read(tmp_path / name)


def test_a_dicom_file_may_have_any_name(tmp_path):
    assert len(read(save(dicom(STORED), tmp_path / "a.img"))) == 1
    assert pydicom.dcmread(tmp_path / "a.img").Rows == 64
