"""Training sets of other denoisers: arrays in folders, whose names tell the side of a pair."""

from __future__ import annotations

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.cli import main
from ctinv.invariance.data import LDCTData, fitting_set
from ctinv.invariance.data.doses import dose_of, doses_in_names, side_of
from ctinv.invariance.data.noise_level import other_units, same_slice
from ctinv.invariance.data.twins import check_doses
from ctinv.zoo.training import load_pairs

from .io.files import dicom, save
from .test_pairing import anatomy, low_of

PATIENTS = (67, 96, 109)
SLICES = 3

# How the low and the high side of a pair are called; p: patient, i: slice.
LAYOUTS = [
    ("L{p:03d}_{i}_input", "L{p:03d}_{i}_target"),
    ("case{p}_{i}_input", "case{p}_{i}_target"),
    ("input_{p}_{i}", "target_{p}_{i}"),
    ("noisy/{p}_{i}", "gt/{p}_{i}"),
    ("noisy/P{p:02d}/{i}", "clean/P{p:02d}/{i}"),
    ("P{p:02d}/noisy/{i}", "P{p:02d}/GT/{i}"),
    ("LQ/P{p}_{i:03d}", "HQ/P{p}_{i:03d}"),
    ("LQ/{p}{i:03d}", "GT/{p}{i:03d}"),
    ("LDCT/{p}_{i}", "NDCT/{p}_{i}"),
    ("quarter_dose/{p}_{i}", "full_dose/{p}_{i}"),
    ("low/{p}_{i}", "high/{p}_{i}"),
    ("3mm/quarter3mm/L{p:03d}/{i}", "3mm/full3mm/L{p:03d}/{i}"),
    ("LD/{p}_{i}", "ND/{p}_{i}"),
    ("train/input/{p}_{i}", "train/target/{p}_{i}"),
    ("noisy{p}{i:03d}", "clean{p}{i:03d}"),
    ("LDCT_{p}_{i}_input", "LDCT_{p}_{i}_target"),
    ("LDCT/input/ldct_{p}_{i}", "LDCT/label/ldct_{p}_{i}"),
    ("low/LDCT_{p}_{i}", "high/LDCT_{p}_{i}"),
    ("high_noise/{p}_{i}", "low_noise/{p}_{i}"),
    ("noise/{p}_{i}", "noise_free/{p}_{i}"),
]


def write(file, hu, suffix=".npy"):
    file = file.with_name(file.name + suffix)
    file.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".npy":
        np.save(file, hu)
    elif suffix == ".mha":
        head = "NDims = 2\nDimSize = 64 64\nElementSpacing = 1 1\nElementType = MET_SHORT\n"
        file.write_bytes(f"{head}ElementDataFile = LOCAL\n".encode() + hu.astype("<i2").tobytes())
    else:
        place, number = [0, 0, float(file.stem[-1])], int(file.stem[-1])
        tags = {"PatientID": "", "SeriesDescription": "", "SeriesInstanceUID": f"1.{len(file.parent.name)}"}
        stored = (hu + 1024).astype(np.uint16)
        save(dicom(stored, ImagePositionPatient=place, InstanceNumber=number, **tags), file)


def training_set(root, names, suffix=".npy"):
    for p in PATIENTS:
        for i in range(SLICES):
            high = anatomy(f"L{p:03d}", i)
            for name, hu in zip(names, (low_of(high, i), high), strict=True):
                write(root / name.format(p=p, i=i), hu, suffix)
    return root


def check(pairs):
    full = {anatomy(f"L{p:03d}", i).astype(np.float32).tobytes() for p in PATIENTS for i in range(SLICES)}
    assert len(pairs) == len(full)
    assert {y.tobytes() for y in pairs.high} == full
    assert all(20 < (x - y).std() < 40 for x, y in zip(pairs.low, pairs.high, strict=True))


class TestLayouts:
    @pytest.mark.parametrize("names", LAYOUTS, ids=lambda names: names[0] + " " + names[1])
    def test_arrays(self, tmp_path, names):
        pairs = fitting_set(training_set(tmp_path, names))
        check(pairs)
        assert not pairs.notes

    @pytest.mark.parametrize("names", [("noisy/P{p}/{i}", "clean/P{p}/{i}"), ("P{p}/LQ/{i}", "P{p}/GT/{i}")])
    def test_dicom(self, tmp_path, names):
        check(fitting_set(training_set(tmp_path, names, ".dcm")))

    def test_slices_of_a_patient_stay_together(self, tmp_path):
        pairs = fitting_set(training_set(tmp_path, ("case{p}_{i}_input", "case{p}_{i}_target")))
        assert {pairs.patients.count(p) for p in pairs.patients} == {SLICES}

    def test_named_folders_whose_files_tell_their_side(self, tmp_path):
        training_set(tmp_path, ("a/{p}_{i}_input", "b/{p}_{i}_target"))
        check(fitting_set(f"low={tmp_path}/a,high={tmp_path}/b"))
        with pytest.raises(ImageError, match="given as low dose, but names or tags say high"):
            fitting_set(f"low={tmp_path}/b,high={tmp_path}/a")


class TestMisuse:
    @pytest.mark.parametrize("names", [LAYOUTS[0], LAYOUTS[3], LAYOUTS[13]])
    def test_low_dose_alone(self, tmp_path, names):
        training_set(tmp_path, (names[0], names[0] + "_spare"), ".mha")
        for file in tmp_path.rglob("*_spare.mha"):
            file.unlink()
        with pytest.raises(ImageError, match="never taken for high dose"):
            fitting_set(tmp_path)

    def test_half_missing(self, tmp_path, capfd):
        training_set(tmp_path, LAYOUTS[0])
        (tmp_path / "L067_1_target.npy").unlink()
        (tmp_path / "L096_0_input.npy").unlink()
        pairs = fitting_set(tmp_path)
        assert len(pairs) == len(PATIENTS) * SLICES - 2
        assert sum("no high-dose twin" in n or "no low-dose twin" in n for n in pairs.notes) == 2
        assert main(["data", "pairs", str(tmp_path), "--json"]) == 0
        told = capfd.readouterr().out
        assert "L067_1_input.npy" in told
        assert "L096_0_target.npy" in told

    def test_other_names_are_not_paired_by_their_order(self, tmp_path):
        training_set(tmp_path, ("low/a{p}_{i}", "high/b{p}_{i}"))
        with pytest.raises(ImageError, match="no pair"):
            fitting_set(tmp_path)

    def test_stacks_in_another_order(self, tmp_path):
        high = np.stack([anatomy("L067", i) for i in range(5)])
        np.save(tmp_path / "high.npy", np.roll(high, 1, axis=0))
        np.save(tmp_path / "low.npy", low_of(high))
        with pytest.raises(ImageError, match=r"another order|same slice"):
            fitting_set(tmp_path)
        np.save(tmp_path / "high.npy", high)
        assert len(fitting_set(tmp_path)) == 5
        np.save(tmp_path / "high.npy", high[:4])
        with pytest.raises(ImageError, match=r"holds 5 slices, its twin high\.npy 4"):
            fitting_set(tmp_path)

    def test_neighbours_are_not_twins(self):
        """Slices that lie close look alike; in the order of their neighbours they are refused."""
        high = np.stack([anatomy("L067", 0) for _ in range(5)]).astype(np.float32)
        for k in range(5):
            high[k, 20 : 24 + 3 * k, 28:36] = 200.0
        low = low_of(high).astype(np.float32)
        check_doses(low, high, "P")
        with pytest.raises(ImageError, match="another order"):
            check_doses(low, np.roll(high, 1, axis=0), "P")

    @pytest.mark.parametrize(("a", "b"), [("trainA/{p}_{i}", "trainB/{p}_{i}"), ("{p}_{i}_a", "{p}_{i}_b")])
    @pytest.mark.parametrize("suffix", [".npy", ".mha"])
    def test_nothing_says_which_is_which(self, tmp_path, a, b, suffix):
        with pytest.raises(ImageError, match="nothing says which is which"):
            fitting_set(training_set(tmp_path, (a, b), suffix))

    def test_only_the_clean_side_is_told(self, tmp_path):
        with pytest.raises(ImageError, match="nothing says which is which"):
            fitting_set(training_set(tmp_path, ("image/{p}_{i}", "label/{p}_{i}"), ".mha"))

    def test_two_patients_with_files_of_one_name_are_no_twins(self, tmp_path):
        for patient, noise in (("L067", 1), ("L096", 40)):
            hu = anatomy(patient, 0)
            hu[10:22, 24:40] = 1000.0 if noise == 1 else 40.0
            hu += np.random.default_rng(0).normal(0, noise, (64, 64))
            write(tmp_path / patient / "0001", np.rint(hu), ".mha")
        assert len(fitting_set(tmp_path)) == 2

    def test_a_map_of_noise_is_no_twin(self):
        high = anatomy("L067", 0).astype(np.float32)
        assert not same_slice(low_of(high).astype(np.float32), (low_of(high) - high).astype(np.float32))


class TestUnits:
    SCALED = ",scale=4096,offset=1024"

    def unit(self, root):
        training_set(root, LAYOUTS[0])
        for file in root.glob("*.npy"):
            np.save(file, ((np.load(file) + 1024) / 4096).astype(np.float32))
        return root

    def test_scaled_arrays_are_refused_with_the_mend(self, tmp_path):
        self.unit(tmp_path)
        for use in (fitting_set, load_pairs):
            with pytest.raises(ImageError, match=r"scaled to \[0, 1\].*4096.*1024.*FOLDER,scale=S,offset=K"):
                use(tmp_path)

    def test_scaled_arrays_are_read_as_told(self, tmp_path):
        spec = f"{self.unit(tmp_path)}{self.SCALED}"
        pairs = fitting_set(spec)
        assert len(pairs) == len(PATIENTS) * SLICES
        least = min(anatomy(f"L{p:03d}", i).min() for p in PATIENTS for i in range(SLICES))
        np.testing.assert_allclose(min(y.min() for y in pairs.high), least, atol=0.01)
        assert len(load_pairs(spec).pairs) == len(pairs)
        assert len(LDCTData(spec)) == len(pairs)

    def test_high_dose_alone_is_read_as_told(self, tmp_path):
        for i in range(2):
            write(tmp_path / f"{i}", anatomy("L067", i) + 1024, ".mha")
        with pytest.raises(ImageError, match=r"--offset 1024.*FOLDER,scale=S,offset=K"):
            fitting_set(tmp_path)
        for spec in (f"{tmp_path},offset=1024", f"high={tmp_path},offset=1024"):
            np.testing.assert_array_equal(
                min(y.min() for y in fitting_set(spec).high), min(anatomy("L067", i).min() for i in range(2))
            )

    @pytest.mark.parametrize("slope", [0.1, 10.0])
    def test_one_side_lost_its_slope(self, slope):
        high = anatomy("L067", 0).astype(np.float32)
        low = low_of(high).astype(np.float32)
        with pytest.raises(ImageError, match="lost its rescale slope"):
            check_doses([(slope * low).astype(np.float32)], [high], "P")

    @pytest.mark.parametrize("series", ["1.2.3", "1.2.4"])
    @pytest.mark.parametrize(
        "lost", [{"RescaleIntercept": "0"}, {"RescaleSlope": "0.1"}, {"RescaleIntercept": "-900"}]
    )
    def test_twins_one_of_which_lost_its_rescale(self, tmp_path, lost, series):
        for i in range(3):
            stored = (anatomy("L067", i) + 1024).astype(np.uint16)
            place = {"ImagePositionPatient": [0, 0, float(i)], "InstanceNumber": i + 1}
            save(dicom(stored, **place), tmp_path / f"a{i}.dcm")
            save(dicom(stored, SeriesInstanceUID=series, **place, **lost), tmp_path / f"b{i}.dcm")
        with pytest.raises(ImageError, match=r"in other units: .*lost its rescale slope or intercept"):
            fitting_set(tmp_path)

    def test_two_doses_are_not_one_image_in_other_units(self):
        high = anatomy("L067", 0).astype(np.float32)
        assert other_units(high, high) is None
        assert other_units(high, low_of(high).astype(np.float32)) is None
        assert other_units(low_of(high).astype(np.float32), high) is None
        slope, offset = other_units(high, (0.1 * high - 922).astype(np.float32))
        assert (slope, offset) == (pytest.approx(0.1, abs=1e-3), pytest.approx(-922, abs=0.5))


@pytest.mark.parametrize(
    ("name", "dose"),
    [
        ("L067_0_input.npy", "low"), ("L067_0_target.npy", "high"), ("noisyImages", "low"), ("GT", "high"),
        ("ground_truth", "high"), ("low_noise", "high"), ("high-noise", "low"), ("noise_free", "high"),
        ("without noise", "high"), ("LDCT_7_target", "high"), ("input and target", None), ("L067", None),
        ("denoised", None), ("quarter_1mm", None), ("reflow", None), ("gtx", None),
    ],
)  # fmt: skip
def test_side_of(name, dose):
    assert side_of(name) == dose


def test_what_names_tell():
    assert dose_of("target reconstruction") is None
    assert doses_in_names("LDCT", ["P1", "target"], "1.npy") == ["low", None, "high", None]
    assert doses_in_names("x", ["full3mm"], "L067_QD_1.IMA") == ["high", "low", None, None]
    assert doses_in_names("input", [], "1.npy") == [None] * 4, "many a folder is called so"
    assert doses_in_names("noisy", [], "1.npy") == [None, None, "low", None]
    for word in ("low_contrast", "high_resolution", "full_fov"):
        assert doses_in_names("x", [word], word) == [None] * 4


@pytest.mark.parametrize("word", ["reference", "input"])
def test_a_folder_within_both_doses_tells_none(tmp_path, word):
    check(fitting_set(training_set(tmp_path, (f"low/{word}/{{p}}_{{i}}", f"high/{word}/{{p}}_{{i}}"))))


def test_a_folder_that_contradicts_the_one_around_it_is_doubted(tmp_path):
    training_set(tmp_path, ("low_dose/reference/{p}_{i}", "low_dose/reference/x{p}_{i}"), ".mha")
    with pytest.raises(ImageError, match=r"contradict each other.*never taken for high dose"):
        fitting_set(tmp_path)
