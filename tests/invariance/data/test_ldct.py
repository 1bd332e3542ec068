"""LDCT-and-Projection-data in its exact layout, made of small real DICOM files."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.cli import main
from ctinv.invariance.data import CTSlice, LDCTData, PatchSampler, find_ldct, fitting_set, write_dicom
from ctinv.invariance.networks.fit_record import FitRecord

SIZE = 24


def scan(root, patient, count, low_only=0, seed=0, size=SIZE):
    """One scan: slices numbered from 1 with as many digits as the count needs, twice."""
    digits = len(str(count))
    study = root / "LDCT-and-Projection-data" / patient / f"12-23-2021-NA-NA-{patient[1:]}42"
    low = study / "1.000000-Low Dose Images-71581"
    high = study / "1.000000-Full Dose Images-39842"
    (study / "1.000000-Low Dose Projection-94715").mkdir(parents=True)
    rng = np.random.default_rng([seed, *patient.encode()])
    for folder, limit in ((low, count + low_only), (high, count)):
        folder.mkdir()
        for i in range(limit):
            hu = np.rint(rng.normal(40, 200 if folder is low else 100, (size, size))).clip(-1024, 3071)
            image = CTSlice(
                hu.astype(np.float32),
                np.ones(hu.shape, bool),
                (0.7, 0.7),
                (0.0, 0.0, -2.0 * i),
                (1.0, 0, 0, 0, 1.0, 0),
            )
            write_dicom(image, None, folder / f"1-{i + 1:0{digits}d}.dcm", "x", step=1, instance=i + 1)
    return study


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tcia")
    for patient, count in (("C002", 3), ("L004", 11), ("L006", 2), ("N012", 2), ("L010", 1)):
        scan(root, patient, count)
    (root / "LDCT-and-Projection-data" / "C030").mkdir()  # projections alone, no images
    (root / "LDCT-and-Projection-data" / "LICENSE").write_text("x")
    return root


class TestDiscovery:
    @pytest.mark.parametrize("inner", ["", "LDCT-and-Projection-data"])
    def test_layout(self, tree, inner):
        scans = find_ldct(tree / inner)
        assert [(s.patient, s.region, len(s.names)) for s in scans] == [
            ("C002", "chest", 3), ("L004", "abdomen", 11), ("L006", "abdomen", 2), ("L010", "abdomen", 1),
            ("N012", "head", 2),
        ]  # fmt: skip
        assert scans[1].names[0] == "1-01.dcm"
        assert scans[1].names[-1] == "1-11.dcm"
        assert scans[0].names == ("1-1.dcm", "1-2.dcm", "1-3.dcm")

    def test_one_patient(self, tree):
        assert len(find_ldct(tree / "LDCT-and-Projection-data" / "L006")) == 1

    def test_slices_without_a_twin_are_left_out(self, tmp_path):
        scan(tmp_path, "L001", 2, low_only=3)
        assert len(find_ldct(tmp_path)[0].names) == 2

    def test_names_are_sorted_by_number(self, tmp_path):
        study = scan(tmp_path, "L001", 1)
        for kind in ("1.000000-Low Dose Images-71581", "1.000000-Full Dose Images-39842"):
            for name in ("1-10.dcm", "1-9.dcm", "1-2.dcm"):
                (study / kind / name).touch()
        assert find_ldct(tmp_path)[0].names == ("1-1.dcm", "1-2.dcm", "1-9.dcm", "1-10.dcm")

    def test_a_scan_without_its_twin_is_left_out(self, tmp_path):
        study = scan(tmp_path, "L001", 1)
        scan(tmp_path, "L002", 1)
        (study / "1.000000-Full Dose Images-39842").rename(study / "elsewhere")
        assert [s.patient for s in find_ldct(tmp_path)] == ["L002"]

    def test_other_layouts_are_not_taken_for_it(self, tmp_path):
        assert find_ldct(tmp_path) == []
        assert find_ldct(tmp_path / "missing") == []
        with pytest.raises(ImageError, match="Low Dose Images"):
            LDCTData(tmp_path)


class TestPairs:
    def test_order_and_values(self, tree):
        data = LDCTData(tree)
        assert len(data) == 19
        assert data.patients[:4] == ["C002"] * 3 + ["L004"]
        low, high = data[3 + 10]  # the eleventh of L004
        x, y = data.slices(13)
        np.testing.assert_array_equal((low, high), (x.hu, y.hu))
        assert x.source.name == y.source.name == "1-11.dcm"
        assert low.std() > 1.5 * high.std()
        assert low.dtype == np.float32
        for bad in (-1, 19):
            with pytest.raises(IndexError):
                data[bad]

    def test_regions(self, tree):
        assert set(LDCTData(tree, regions=["head", "chest"]).regions) == {"head", "chest"}

    def test_cache_is_bounded_and_true(self, tree):
        pair = 2 * SIZE * SIZE * 2
        data = LDCTData(tree, cache_bytes=3 * pair)
        first = [data[i] for i in range(len(data))]
        assert data._held <= 3 * pair
        assert len(data._cache) == 3
        for i in (18, 0, 18, 5):
            np.testing.assert_array_equal(data[i], first[i])

    def test_what_is_changed_outside_stays_outside(self, tree):
        data = LDCTData(tree)
        data[0][0][:] = 0
        assert data[0][0].std() > 1

    def test_twins_that_do_not_match(self, tmp_path):
        study = scan(tmp_path, "L001", 2)
        high = study / "1.000000-Full Dose Images-39842"
        (high / "1-1.dcm").rename(high / "x")
        (high / "1-2.dcm").rename(high / "1-1.dcm")
        (high / "x").rename(high / "1-2.dcm")
        with pytest.raises(ImageError, match="differ in size or position"):
            LDCTData(tmp_path)[0]


class TestUse:
    def test_subset_is_even_over_patients(self, tree):
        pairs = LDCTData(tree).subset(8, split=None)
        counts = {p: pairs.patients.count(p) for p in pairs.patients}
        assert counts == {"C002": 2, "L004": 2, "L006": 2, "L010": 1, "N012": 1}
        assert "5 patients of LDCT" in pairs.description

    def test_sampler_reads_from_disk(self, tree):
        data = LDCTData(tree)
        x, y = PatchSampler(data, size=8, seed=0).draw(5)
        assert x.shape == y.shape == (5, 1, 8, 8)

    def test_fitting_set_takes_both_doses_of_training_patients(self, tmp_path):
        for i in range(10):
            scan(tmp_path, f"L{i:03d}", 2)
        pairs = fitting_set(tmp_path)
        split = LDCTData(tmp_path).split()
        assert set(pairs.patients) == {p for p, part in split.items() if part == "train"}
        assert len(set(pairs.patients)) == 7
        assert "simulated" not in pairs.description
        assert {part: len(patients) for part, patients in pairs.split.items()} == {
            "train": 7, "validation": 2, "test": 1
        }  # fmt: skip
        assert {p: part for part, patients in pairs.split.items() for p in patients} == split
        assert LDCTData(tmp_path).subset(3, split=None).split is None


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    root = tmp_path_factory.mktemp("large")
    for letter, count in (("C", 3), ("L", 10)):
        for i in range(count):
            scan(root, f"{letter}{i:03d}", 1, size=96)
    return root


class TestCommands:
    """From the command line: the division is told, stored, and held to."""

    TOLD = (
        "patients: chest 2 training, 1 validation, 0 test; abdomen 7 training, 2 validation, 1 test;"
        " only training is used"
    )

    @pytest.fixture
    def expected(self, large):
        split = LDCTData(large).split()
        return {
            part: sorted(p for p in split if split[p] == part) for part in ("train", "validation", "test")
        }

    def test_fit(self, large, expected, tmp_path, capfd):
        words = ["fit", "--model", "yang", "--layer", "conv7", "--preset", "tiny", "--set", "fit.steps=2"]
        assert main([*words, "--data", str(large), "--out", str(tmp_path)]) == 0
        assert self.TOLD in capfd.readouterr().err
        stored = json.loads((tmp_path / "config.json").read_text())["info"]
        assert stored["split"] == expected
        assert stored["data"].startswith("9 slices of 9 patients of LDCT")

    def test_analyze(self, large, expected, tmp_path, capfd, monkeypatch):
        """The fit is a stand-in that says of itself what the one above is seen to say."""

        class Fitted:
            info = FitRecord(split={part: tuple(patients) for part, patients in expected.items()})

            def explain(self, *args, **options):
                raise CtinvError("the fit is all that is wanted here")

        monkeypatch.setattr("ctinv.invariance.fit", lambda _, layers, **options: [Fitted() for _ in layers])
        words = ["analyze", "--model", "yang", "--preset", "tiny"]
        layers = ["--layer", "conv1", "--layer", "conv7"]
        assert main([*words, *layers, "--data", str(large), "--out", str(tmp_path / "out")]) == 3
        assert capfd.readouterr().err.count(self.TOLD) == 1, "told once, whatever the number of layers"

    def test_zoo_train(self, large, expected, tmp_path, capfd):
        from ctinv.zoo import training
        from ctinv.zoo.training.checkpoints import read_checkpoint
        from safetensors import safe_open

        words = ["zoo", "train", "chen", "--steps", "2", "--seed", "3"]
        assert main([*words, "--data", str(large), "--out", str(tmp_path)]) == 0
        assert self.TOLD in capfd.readouterr().err
        _, _, about = read_checkpoint(tmp_path)
        with safe_open(tmp_path / "weights.safetensors", "pt") as file:
            recipe = json.loads(file.metadata()["recipe"])
        assert about["split"] == recipe["split"] == expected
        assert list(training.load_pairs(large, seed=3).patients) == expected["train"]


@pytest.mark.slow
def test_the_whole_collection_fits_in_memory(tmp_path):
    """150 scans, 50,000 slices: names only, with the real lengths."""
    for letter in "CLN":
        for i in range(50):
            study = tmp_path / "LDCT-and-Projection-data" / f"{letter}{i:03d}" / "12-23-2021-NA-NA-74127"
            for kind in ("1.000000-Low Dose Images-71581", "1.000000-Full Dose Images-39842"):
                (study / kind).mkdir(parents=True)
                for k in range(333):
                    (study / kind / f"1-{k + 1:03d}.dcm").touch()
    tracemalloc.start()
    data = LDCTData(tmp_path)
    assert len(data) == 49950
    sampler = PatchSampler(data, size=64, seed=0, split="train")
    assert len(sampler.indices) == 105 * 333
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6
