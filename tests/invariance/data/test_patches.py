"""Divisions of patients, patches, and the slices a fit uses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import Pairs, PatchSampler, body_mask, fitting_set, split_patients, write_dicom
from ctinv.invariance.data import sources as sources_module
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.lowdose import kernel_of
from ctinv.invariance.data.pairs import region_of
from hypothesis import given
from hypothesis import strategies as st

DATA = Path(__file__).parents[4] / "shared" / "data"


def coded(count, shape=(40, 48), patients=None):
    """Pairs whose pixels tell slice, row and column: x = code, y = -code."""
    codes = [
        (np.arange(shape[0])[:, None] * 100 + np.arange(shape[1])[None] + 10000.0 * i).astype(np.float32)
        for i in range(count)
    ]
    names = tuple(patients or [f"p{i}" for i in range(count)])
    return Pairs(
        tuple(codes), tuple(-c for c in codes), names, ("abdomen",) * count, (None,) * count, "codes"
    )


class TestSplit:
    def test_fifty_of_each_part_give_the_papers_numbers(self):
        names = [f"{letter}{i:03d}" for letter in "CLN" for i in range(50)]
        regions = [n[0] for n in names]
        split = split_patients(names, regions)
        for letter in "CLN":
            count = Counter(part for name, part in split.items() if name[0] == letter)
            assert count == {"train": 35, "validation": 10, "test": 5}

    @given(
        st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["x", "y"])), min_size=1),
        st.integers(0, 5),
    )
    def test_every_patient_in_one_part_whatever_the_order(self, rows, seed):
        rows = [(region + name, region) for name, region in rows]
        names, regions = zip(*rows, strict=True)
        split = split_patients(names, regions, seed)
        assert set(split) == set(names)
        backwards = split_patients(names[::-1], regions[::-1], seed)
        assert split == backwards
        for region in set(regions):
            assert "train" in {part for name, part in split.items() if name[0] == region}

    def test_seed_matters(self):
        names = [str(i) for i in range(30)]
        assert split_patients(names, ["a"] * 30, 0) != split_patients(names, ["a"] * 30, 1)


class TestSampler:
    def test_pairs_stay_aligned(self):
        x, y = PatchSampler(coded(3), size=16, seed=0).draw(50)
        assert x.dtype == y.dtype == np.float32
        np.testing.assert_array_equal(x, -y)

    def test_same_seed_same_patches(self):
        a, b, c = (PatchSampler(coded(3), size=16, seed=s) for s in (1, 1, 2))
        first = a.draw(7)
        np.testing.assert_array_equal(first, b.draw(7))
        assert not np.array_equal(first, c.draw(7))
        assert not np.array_equal(first, a.draw(7))

    def test_batches_do_not_matter(self):
        a, b = (PatchSampler(coded(4), size=8, seed=3) for _ in range(2))
        whole = a.draw(10)[0]
        np.testing.assert_array_equal(whole, np.concatenate([b.draw(4)[0], b.draw(6)[0]]))

    def test_patches_are_pieces_of_the_slice_in_all_eight_positions(self):
        x, _ = PatchSampler(coded(1, (24, 24)), size=24, seed=0).draw(80)
        image = coded(1, (24, 24)).low[0]
        turned = [np.rot90(image, k) for k in range(4)]
        turned += [t[:, ::-1] for t in turned]
        seen = Counter(next(i for i, t in enumerate(turned) if np.array_equal(t, p)) for p in x[:, 0])
        assert set(seen) == set(range(8))

    def test_without_augmentation(self):
        x, _ = PatchSampler(coded(1), size=16, seed=0, augment=False).draw(20)
        assert (np.diff(x, axis=3) == 1).all()
        assert (np.diff(x, axis=2) == 100).all()

    def test_every_patient_is_equally_likely(self):
        pairs = coded(10, patients=["a"] * 9 + ["b"])
        sampler = PatchSampler(pairs, size=8, seed=0)
        np.testing.assert_allclose(sampler.weights, [1 / 18] * 9 + [0.5])
        x, _ = sampler.draw(2000)
        share = np.mean(x[:, 0, 0, 0] >= 90000)
        assert share == pytest.approx(0.5, abs=0.04)

    def test_air_does_not_dominate(self):
        hu = np.full((128, 128), -1000.0, np.float32)
        hu[48:80, 48:80] = 40.0  # one sixteenth of the slice
        pairs = Pairs((hu,), (hu,), ("a",), ("abdomen",), (None,), "a block")
        _, y = PatchSampler(pairs, size=16, seed=0).draw(200)
        assert (y > -500).any(axis=(1, 2, 3)).all()
        assert (y > -500).mean() > 0.6

    def test_slices_without_a_body_are_sampled_everywhere(self):
        hu = np.random.default_rng(0).normal(-1000, 5, (64, 64)).astype(np.float32)
        pairs = Pairs((hu,), (hu,), ("a",), ("chest",), (None,), "air")
        assert PatchSampler(pairs, size=16, seed=0).draw(5)[0].shape == (5, 1, 16, 16)

    def test_parts_hold_different_patients_and_all_of_them(self):
        pairs = coded(20)
        indices = [set(PatchSampler(pairs, size=8, split=s).indices) for s in ("train", "validation", "test")]
        assert [len(i) for i in indices] == [14, 4, 2]
        assert set.union(*indices) == set(range(20))

    def test_a_plain_list_of_images_will_do(self):
        pairs = coded(10)
        plain = [pairs[i] for i in range(10)]
        np.testing.assert_array_equal(PatchSampler(plain, 8, 1).draw(4), PatchSampler(pairs, 8, 1).draw(4))
        assert len(PatchSampler(plain, 8, split="train").indices) == 7

    def test_patches_per_slice(self):
        x, _ = PatchSampler(coded(9), size=8, seed=0, patches_per_slice=4).draw(12)
        slices = (x[:, 0, 0, 0] // 10000).reshape(3, 4)
        assert (slices == slices[:, :1]).all()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"size": 0}, "at least 1"),
            ({"size": 8, "split": "dev"}, "train, validation or test"),
            ({"size": 8, "split": "test"}, "no patient falls to the test part"),
            ({"size": 8, "patches_per_slice": 0}, "at least 1"),
        ],
    )
    def test_refused(self, options, words):
        with pytest.raises(ImageError, match=words):
            PatchSampler(coded(3), **options)

    def test_slices_smaller_than_a_patch(self):
        with pytest.raises(ImageError, match="40 x 48 pixels; a patch needs 64"):
            PatchSampler(coded(1), size=64).draw(1)


class TestPairs:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"low": ()}, "no pair"),
            ({"patients": ("a", "b")}, "differ in length"),
            ({"high": (np.zeros((4, 5), np.float32),)}, "both must be the same"),
        ],
    )
    def test_refused(self, change, words):
        image = np.zeros((4, 4), np.float32)
        values = {
            "low": (image,), "high": (image,), "patients": ("a",), "regions": ("chest",), "spacings": (None,),
            "description": "",
        } | change  # fmt: skip
        with pytest.raises(ImageError, match=words):
            Pairs(**values)


def test_body_mask_fills_lungs_and_drops_the_table():
    hu = np.full((80, 80), -1000.0, np.float32)
    hu[20:60, 10:70] = 40
    hu[30:50, 20:40] = -850
    hu[70:72] = -100
    expected = np.zeros(hu.shape, bool)
    expected[20:60, 10:70] = True
    found = body_mask(hu)
    assert (found != expected).mean() < 0.01
    assert not found[65:].any()
    assert found[40, 30]
    assert not body_mask(np.full((20, 20), -1000.0, np.float32)).any()


class TestPhantomSet:
    @pytest.fixture(autouse=True)
    def _own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CTINV_CACHE", str(tmp_path))
        monkeypatch.setitem(sources_module._PHANTOMS, "size", 128)

    def test_drawn_once_then_read(self, tmp_path, monkeypatch):
        seen = []
        first = fitting_set(None, seed=5, progress=lambda *s: seen.append(s), slices=2)
        assert seen == [("phantoms", 1, 2), ("phantoms", 2, 2)]

        def never(*_):
            raise AssertionError("drawn again")

        monkeypatch.setattr(sources_module, "_draw", never)
        again = fitting_set("phantom", seed=5, slices=2)
        for name in ("low", "high"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert first.regions == again.regions == ("chest", "abdomen")
        assert first.spacings == again.spacings
        with pytest.raises(AssertionError, match="drawn again"):
            fitting_set(None, seed=6, slices=2)
        assert {p.name for p in tmp_path.iterdir()} == {"locks", "phantoms"}

    def test_reproducible(self, tmp_path, monkeypatch):
        first = fitting_set(None, slices=1)
        monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "elsewhere"))
        np.testing.assert_array_equal(first.low, fitting_set(None, slices=1).low)

    def test_low_dose_is_the_noisier_and_has_the_same_mean(self):
        pairs = fitting_set(None, slices=2)
        for x, y in zip(pairs.low, pairs.high, strict=True):
            body = body_mask(y) & (y > -150) & (y < 150)
            assert (x - y)[body].std() > 4
            assert abs((x - y)[body].mean()) < 2
            assert x.min() >= -1024


class TestFolder:
    def folder(self, root, count=3):
        rng = np.random.default_rng(0)
        for i in range(count):
            hu = np.full((64, 64), -1000.0)
            hu[12:52, 8:56] = 40
            if i == 0:
                hu[16:48, 12:52] = -850
            hu += rng.normal(0, 5, hu.shape)
            image = CTSlice(
                hu.clip(-1024).astype(np.float32),
                np.ones(hu.shape, bool),
                (5.0, 5.0),
                (0.0, 0.0, 1.0 * i),
                (1.0, 0, 0, 0, 1.0, 0),
            )
            write_dicom(image, None, root / f"{i}.dcm", f"series {i}")
        return root

    def test_low_dose_is_simulated(self, tmp_path):
        pairs = fitting_set(self.folder(tmp_path), seed=1)
        assert len(pairs) == 3
        assert sorted(pairs.regions) == ["abdomen", "abdomen", "chest"]
        for (x, y), region in zip(pairs, pairs.regions, strict=True):
            assert region_of(y) == region
            assert (x - y)[20:40, 20:40].std() > 1
        assert "low dose simulated" in pairs.description
        again = fitting_set(tmp_path, seed=1)
        np.testing.assert_array_equal(pairs.low, again.low)

    def test_noise_of_a_slice_does_not_depend_on_the_others(self, tmp_path):
        pairs = fitting_set(self.folder(tmp_path), seed=1)
        kept = {float(y.sum()): x for x, y in pairs}
        (tmp_path / "1.dcm").unlink()
        for x, y in fitting_set(tmp_path, seed=1):
            np.testing.assert_array_equal(x, kept[float(y.sum())])

    def test_at_most_so_many(self, tmp_path):
        assert len(fitting_set(self.folder(tmp_path), slices=2)) == 2

    def test_refused(self, tmp_path):
        with pytest.raises(ImageError, match="or 'phantom'"):
            fitting_set(tmp_path / "missing")
        np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(0, 50, (32, 32)))
        with pytest.raises(ImageError, match="pixel spacing"):
            fitting_set(tmp_path)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("STANDARD", "smooth"), ("SOFT", "smooth"), ("LUNG", "sharp"), ("BONE", "sharp"), ("", "smooth"),
        ("B20f", "smooth"), ("B31s", "smooth"), ("B60f", "sharp"), ("59 .21.B50s", "smooth"),
        ("FC08", "smooth"), ("59 .10.AB50", "smooth"), ("Br40d\\3", "smooth"), ("Bl57d\\3", "sharp"),
        ("I30f\\3", "smooth"), ("I70f\\3", "sharp"),
    ],
)  # fmt: skip
def test_kernels_of_real_scanners(name, kernel):
    image = CTSlice(np.zeros((8, 8), np.float32), np.ones((8, 8), bool), meta={"kernel": name})
    assert kernel_of(image) == kernel


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data: real slices are not used")
def test_real_slices():
    pairs = fitting_set(DATA / "ct/tcga", slices=3, seed=2)
    assert len(set(pairs.patients)) == 3
    for x, y in pairs:
        body = body_mask(y) & (y > -50) & (y < 150)
        assert 5 < (x - y)[body].std() < 400
