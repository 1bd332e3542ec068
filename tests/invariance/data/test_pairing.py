"""Doses in every layout that people have: paired, noted or refused, and never exchanged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import find_scans, fitting_set
from ctinv.invariance.data.doses import dose_of, patient_in
from ctinv.invariance.data.spec import sources_of
from ctinv.zoo.training import load_pairs

from .io.files import dicom, save

PATIENTS = ("L067", "L096", "L109")
SLICES = 3


def anatomy(patient, index):
    """Full dose of one slice, HU: every patient and every slice differs."""
    rng = np.random.default_rng([int(patient[-3:]), index])
    y, x = np.mgrid[:64, :64] - 31.5
    hu = np.full((64, 64), -1000.0)
    hu[np.hypot(x, (1.1 + 0.1 * index) * y) < 26] = 40.0
    dx, dy = rng.uniform(-10, 10, 2)
    hu[np.hypot(x - dx, y - dy) < 6] = 400.0
    return np.rint(hu + rng.normal(0, 5, hu.shape)).clip(-1020, 3000)


def low_of(hu, seed=0):
    return np.rint(hu + np.random.default_rng(seed).normal(0, 30, hu.shape)).clip(-1024, 3000)


def write(file, hu, z, **tags):
    file.parent.mkdir(parents=True, exist_ok=True)
    save(dicom((hu + 1024).astype(np.uint16), ImagePositionPatient=[0, 0, z], **tags), file)


def mayo(root, folder, kernels=("B30f",), thicknesses=(1,)):
    """AAPM/Mayo 2016: real file names; PatientID says Anonymous."""
    for number, patient in enumerate(PATIENTS):
        for kernel in kernels:
            for mm in thicknesses:
                for dose, tag in (("full", "FD"), ("quarter", "QD")):
                    for i in range(SLICES):
                        hu = anatomy(patient, i) + 20 * kernels.index(kernel)
                        place = root / folder.format(dose=dose, patient=patient, mm=mm, kernel=kernel[:3])
                        name = f"{patient}_{tag}_1_1.CT.0001.{i + 1:04d}.2015.12.22.18.09.40.840353.{i}.IMA"
                        write(
                            place / name,
                            hu if dose == "full" else low_of(hu, i),
                            float(i * mm),
                            PatientID="Anonymous",
                            PatientName=f"{patient}_{tag}_1",
                            SeriesDescription="",
                            SeriesInstanceUID=f"1.2.{number}.{tag == 'FD':d}.{mm}.{kernels.index(kernel)}",
                            ConvolutionKernel=kernel,
                            SliceThickness=mm,
                            InstanceNumber=i + 1,
                        )
    return root


def tcia(root, uids):
    """LDCT-and-Projection-data, descriptive folders or UIDs alone."""
    for number, patient in enumerate(PATIENTS):
        for kind in ("Low Dose Images", "Full Dose Images"):
            study = f"1.3.6.1.{number}" if uids else "12-23-2021-NA-NA-74127"
            series = f"1.3.6.1.{number}.{kind[0]}" if uids else f"1.000000-{kind}-39842"
            for i in range(SLICES):
                hu = anatomy(patient, i)
                write(
                    root / "LDCT-and-Projection-data" / patient / study / series / f"1-{i + 1}.dcm",
                    hu if kind[0] == "F" else low_of(hu, i),
                    float(i),
                    PatientID=patient,
                    SeriesDescription=kind,
                    SeriesInstanceUID=f"1.3.6.{number}.{kind[0] == 'F':d}",
                )
    return root


LAYOUTS = {
    "dose, patient, dose": lambda root: mayo(root, "{dose}_1mm/{patient}/{dose}_1mm"),
    "patient, dose": lambda root: mayo(root, "{patient}/{dose}_1mm"),
    "dose, patient": lambda root: mayo(root, "{dose}_1mm/{patient}"),
    "thickness and kernel": lambda root: mayo(
        root, "{mm}mm {kernel}/{dose}_{mm}mm/{patient}/{dose}_{mm}mm", ("B30f", "D45f"), (1, 3)
    ),
    "flat": lambda root: mayo(root, "."),
    "descriptive": lambda root: tcia(root, False),
    "UIDs": lambda root: tcia(root, True),
}


@pytest.fixture(params=LAYOUTS)
def tree(request, tmp_path):
    return LAYOUTS[request.param](tmp_path / "data")


def check(low, high):
    """Low is the noisier version of the same slice, high is one of the full-dose slices."""
    full = {
        (anatomy(p, i) + shift).astype(np.float32).tobytes()
        for p in PATIENTS
        for i in range(SLICES)
        for shift in (0, 20)
    }
    assert all(y.tobytes() in full for y in high)
    assert not any(x.tobytes() in full for x in low)
    for x, y in zip(low, high, strict=True):
        assert 20 < (x - y).std() < 40


class TestLayouts:
    def test_fitting_set(self, tree):
        pairs = fitting_set(tree)
        check(pairs.low, pairs.high)
        assert set(pairs.patients) == set(PATIENTS)
        assert pairs.notes == ()

    def test_zoo(self, tree):
        pairs = load_pairs(tree)
        check([p.low[0] for p in pairs.pairs], [p.full for p in pairs.pairs])
        assert pairs.patients == PATIENTS

    def test_kernels_and_thicknesses_do_not_mix(self, tmp_path):
        pairs = fitting_set(LAYOUTS["thickness and kernel"](tmp_path))
        assert len(pairs) == 4 * len(PATIENTS) * SLICES

    def test_named_folders(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        pairs = fitting_set(f"low={tmp_path}/quarter_1mm,high={tmp_path}/full_1mm")
        check(pairs.low, pairs.high)
        with pytest.raises(ImageError, match="given as low dose, but names or tags say high"):
            fitting_set(f"low={tmp_path}/full_1mm,high={tmp_path}/quarter_1mm")

    @pytest.mark.parametrize("suffix", ["npy", "mha"])
    def test_arrays(self, tmp_path, suffix):
        for dose in ("low", "high"):
            (tmp_path / dose).mkdir()
            for patient in PATIENTS:
                stack = np.stack([anatomy(patient, i) for i in range(SLICES)]).astype("<i2")
                stack = stack if dose == "high" else low_of(stack).astype("<i2")
                file = tmp_path / dose / f"{patient}.{suffix}"
                if suffix == "npy":
                    np.save(file, stack)
                else:
                    head = f"NDims = 3\nDimSize = 64 64 {SLICES}\nElementSpacing = 1 1 1\n"
                    head += "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
                    file.write_bytes(head.encode() + stack.tobytes())
        for spec in (tmp_path, f"low={tmp_path}/low,high={tmp_path}/high"):
            pairs = fitting_set(spec)
            check(pairs.low, pairs.high)
            assert len(pairs) == len(PATIENTS) * SLICES


class TestMisuse:
    def test_quarter_dose_alone_is_refused(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        shutil.rmtree(tmp_path / "full_1mm")
        for folder in (tmp_path, tmp_path / "quarter_1mm", tmp_path / "quarter_1mm" / "L067"):
            for use in (fitting_set, load_pairs):
                with pytest.raises(ImageError, match="never taken for high dose"):
                    use(folder)

    def test_full_dose_alone_is_high_dose(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        for spec in (tmp_path / "full_1mm", f"high={tmp_path}/full_1mm"):
            pairs = fitting_set(spec)
            assert "simulated" in pairs.description
            assert len(pairs) == len(PATIENTS) * SLICES

    def test_half_missing(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        shutil.rmtree(tmp_path / "full_1mm" / "L096")
        next((tmp_path / "quarter_1mm" / "L109").glob("*.0002.*")).unlink()
        pairs = fitting_set(tmp_path)
        check(pairs.low, pairs.high)
        assert len(pairs) == 2 * SLICES - 1
        assert any("no high-dose twin" in note for note in pairs.notes)
        assert not any("L096" in note or str(tmp_path) in note for note in pairs.notes)

    def test_half_missing_with_descriptive_folders(self, tmp_path):
        tcia(tmp_path, False)
        studies = sorted((tmp_path / "LDCT-and-Projection-data").glob("*/*"))
        shutil.rmtree(studies[0] / "1.000000-Full Dose Images-39842")
        (studies[1] / "1.000000-Low Dose Images-39842" / "1-2.dcm").unlink()
        pairs = fitting_set(tmp_path)
        check(pairs.low, pairs.high)
        assert [note[:18] for note in pairs.notes] == ["left out: 1 scans:", "left out: 1 slices"]

    def test_files_in_the_wrong_folder(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        for file in (tmp_path / "quarter_1mm" / "L067").iterdir():
            file.rename(tmp_path / "full_1mm" / "L067" / file.name)
        pairs = fitting_set(tmp_path)
        check(pairs.low, pairs.high)
        assert set(pairs.patients) == {"L096", "L109"}
        assert any("contradict" in note for note in pairs.notes)

    def test_patients_exchanged(self, tmp_path):
        mayo(tmp_path, "{patient}/{dose}_1mm")
        for a, b in (("L067", "x"), ("L096", "L067"), ("x", "L096")):
            (tmp_path / a / "quarter_1mm").rename(
                (tmp_path / b).mkdir(exist_ok=True) or tmp_path / b / "quarter_1mm"
            )
        pairs = fitting_set(tmp_path)
        check(pairs.low, pairs.high)
        assert set(pairs.patients) == {"L109"}

    @pytest.mark.parametrize("shift", [1, 2])
    def test_names_of_slices_shuffled(self, tmp_path, shift):
        tcia(tmp_path, True)
        for patient in PATIENTS:
            folder = next((tmp_path / "LDCT-and-Projection-data" / patient).glob("*/*.F"))
            files = sorted(folder.iterdir())
            for k, file in enumerate(files):
                file.rename(file.with_name(f"x{(k + shift) % SLICES}.dcm"))
        pairs = fitting_set(tmp_path)
        check(pairs.low, pairs.high)
        assert len(pairs) == len(PATIENTS) * SLICES

    def test_doses_exchanged_in_all_names(self, tmp_path):
        tcia(tmp_path, False)
        for study in (tmp_path / "LDCT-and-Projection-data").glob("*/*"):
            low, high = (study / f"1.000000-{dose} Dose Images-39842" for dose in ("Low", "Full"))
            low.rename(study / "x")
            high.rename(low)
            (study / "x").rename(high)
        with pytest.raises(ImageError, match="times the noise"):
            fitting_set(tmp_path)

    def test_another_slice_at_the_same_place(self, tmp_path):
        tcia(tmp_path, True)
        folder = next((tmp_path / "LDCT-and-Projection-data" / PATIENTS[0]).glob("*/*.F"))
        tags = {"SeriesDescription": "Full Dose Images", "SeriesInstanceUID": "1.3.6.0.1"}
        for i in range(SLICES):
            moved = np.roll(anatomy(PATIENTS[0], i), 20, axis=1)
            write(folder / f"1-{i + 1}.dcm", moved, float(i), PatientID=PATIENTS[0], **tags)
        with pytest.raises(ImageError, match="do not show the same slice"):
            fitting_set(tmp_path)

    def test_two_doses_that_nothing_names(self, tmp_path):
        for series in (1, 2):
            for i in range(SLICES):
                hu = anatomy("L067", i)
                tags = {"SeriesDescription": "", "SeriesInstanceUID": f"1.{series}", "PatientID": "A"}
                write(
                    tmp_path / f"{series}" / f"{i}.dcm", hu if series == 1 else low_of(hu), float(i), **tags
                )
        with pytest.raises(ImageError, match="nothing says which"):
            fitting_set(tmp_path)

    def test_screening_at_low_dose(self, tmp_path):
        text = "Low Dose Chest 1.25mm"
        write(tmp_path / "a.dcm", anatomy("L067", 0), 0.0, SeriesDescription=text)
        with pytest.raises(ImageError, match="never taken for high dose"):
            fitting_set(tmp_path)
        assert len(fitting_set(f"high={tmp_path}")) == 1


class TestReport:
    def test_every_slice_is_accounted_for(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        next((tmp_path / "full_1mm" / "L109").glob("*.0002.*")).unlink()
        matches = find_scans(tmp_path).matches
        assert (
            sum((m.low is not None) + (m.high is not None) for m in matches) == 2 * len(PATIENTS) * SLICES - 1
        )
        assert [m.problem for m in matches if m.problem] == ["no high-dose twin at its place"]

    def test_private_patients_are_numbered(self, tmp_path):
        for name in ("Mueller", "Schmidt"):
            for dose in ("low", "full"):
                hu = anatomy("L067", len(name) % 3)
                write(
                    tmp_path / dose / name / "1.dcm",
                    hu if dose == "full" else low_of(hu),
                    0.0,
                    PatientID=name,
                )
        pairs = fitting_set(tmp_path)
        assert set(pairs.patients) == {"patient-01", "patient-02"}
        assert pairs.split["train"] == ("patient-01", "patient-02")

    @pytest.mark.parametrize("above", ["LDCT", "full", "quarter_1mm"])
    def test_a_folder_above_both_doses_tells_none(self, tmp_path, above):
        root = tmp_path / "data"
        mayo(root / above, "{patient}")
        pairs = fitting_set(root)
        assert len(pairs) == len(PATIENTS) * SLICES
        assert all(np.std(low - high) > 20 for low, high in zip(pairs.low, pairs.high, strict=True))
        assert all(np.std(high[:6, :6]) < 8 for high in pairs.high)
        shutil.rmtree(root)
        mayo(root, above + "/{patient}/{dose}_1mm")
        assert len(fitting_set(root)) == len(PATIENTS) * SLICES

    def test_files_in_the_folder_of_the_other_dose_are_still_doubted(self, tmp_path):
        mayo(tmp_path, "{dose}_1mm/{patient}")
        for file in (tmp_path / "quarter_1mm" / "L067").iterdir():
            shutil.move(file, tmp_path / "full_1mm" / "L067" / file.name)
        pairs = fitting_set(tmp_path)
        assert len(pairs) == (len(PATIENTS) - 1) * SLICES

    def test_copies_are_fitted_on_once(self, tmp_path):
        for i in range(3):
            write(tmp_path / f"{i}.dcm", anatomy("L067", i), float(i), PatientID="L067", InstanceNumber=i)
        shutil.copy(tmp_path / "1.dcm", tmp_path / "copy.dcm")
        pairs = fitting_set(tmp_path)
        assert len(pairs) == 3
        assert any("a copy of another slice" in note for note in pairs.notes)


@pytest.mark.parametrize(
    ("text", "dose"),
    [
        ("quarter_3mm_sharp", "low"), ("full_3mm", "high"), ("L067_QD_1_1.CT.0001.IMA", "low"),
        ("L067_FD_1_1.CT.0001.IMA", "high"), ("LowDose", "low"), ("NDCT", "high"), ("25% dose", "low"),
        ("LDCT-and-Projection-data", None), ("followup", None), ("lower lobe", None),
        ("full and low dose", None), ("routine dose", "high"), ("ABDOMEN", None),
        ("SDCT", "high"), ("ULDCT", "low"),
    ],
)  # fmt: skip
def test_dose_of(text, dose):
    assert dose_of(text) == dose


def test_patients_stand_in_tag_name_or_folder():
    assert patient_in("P7", ["L067_FD_1"]) == ("P7", False)
    assert patient_in("L067", ["L096"]) == ("L067", True)
    assert patient_in("Anonymous", ["L067_FD_1", "L067"]) == ("L067", False)
    assert patient_in("", ["L067", "L096"]) == ("L067", True)
    assert patient_in("ANON", ["Full dose", "Mueller 1mm"])[0] == "mueller"
    assert patient_in("", []) == ("", False)


@pytest.mark.parametrize("spec", ["low=.", "low=.,low=.", "high=nowhere", "low=nowhere,high=."])
def test_specs_that_name_no_doses(spec):
    with pytest.raises(ImageError, match="low=FOLDER,high=FOLDER"):
        sources_of(spec)
