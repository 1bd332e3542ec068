"""Scores against known answers, and the noise level that the dose simulation is matched to."""

import math
from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.zoo.training import Pair, TrainingSet, load_pairs, score
from ctinv.zoo.training.scores import uniform_regions

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "ct" / "tcga"


def disc(size=192, value=40.0):
    rows, columns = np.mgrid[:size, :size] - size / 2
    return np.where(np.hypot(rows, columns) < 0.46 * size, value, -1000.0).astype(np.float32)


def noisy_set(added=30.0, own=10.0):
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(3):
        full = disc() + rng.normal(0, own, (192, 192)).astype(np.float32)
        low = full + rng.normal(0, added, (1, 192, 192)).astype(np.float32)
        pairs.append(Pair(low, full, f"P{i}"))
    return TrainingSet(pairs)


def test_scores_of_known_denoisers():
    data = noisy_set()
    same = score(lambda x: x, data)
    assert (same.slices, same.patients) == (3, 3)
    assert same.rmse_low == pytest.approx(30, rel=0.02)
    assert same.reduction == 0.0
    assert same.power["high"] == pytest.approx(10.0, rel=0.1)  # (30^2 + 10^2) / 10^2
    assert same.power == same.power_low
    truth = score(lambda x: disc()[None, None], data)
    assert truth.rmse == pytest.approx(10, rel=0.02)
    assert truth.reduction == pytest.approx(1 - truth.rmse / truth.rmse_low)
    assert truth.reduction == pytest.approx(2 / 3, abs=0.02)
    assert all(value < 1e-6 for value in truth.power.values())


def test_worst_patient_is_reported():
    data = noisy_set()
    spoilt = data.pairs[1].low[0]
    result = score(lambda x: x + 100 if np.array_equal(x[0, 0], spoilt) else x, data)
    assert result.reduction_worst < -1.5
    assert result.reduction_mean == pytest.approx(result.reduction_worst / 3)


@pytest.mark.parametrize(("added", "own"), [(30.0, 10.0), (math.sqrt(3) * 12.0, 12.0)])
def test_bound_of_white_noise_in_closed_form(added, own):
    data = noisy_set(added, own)
    known = 1 - own / math.hypot(own, added)  # the best guess at the own noise is its share of the sum
    result = score(lambda x: x, data)
    assert result.bound == pytest.approx(known, abs=0.02)
    share = own**2 / (own**2 + added**2)
    oracle = score(lambda x: disc() + share * (x - disc()), data)
    assert oracle.reduction == pytest.approx(known, abs=0.01), "knowing the disc, nothing does better"


def test_regions_are_uniform_and_apart():
    image = disc()
    image[:96] += 300.0  # bone-like: not soft tissue
    regions = uniform_regions(image)
    assert 1 <= len(regions) <= 6
    taken = np.zeros(image.shape, dtype=int)
    for rows, columns in regions:
        assert image[rows, columns].std() < 1.0
        taken[rows, columns] += 1
    assert taken.max() == 1
    assert not taken[:96].any()


def test_no_body_no_score():
    air = np.full((64, 64), -1000.0, dtype=np.float32)
    with pytest.raises(ImageError, match="no held-out slice shows a body"):
        score(lambda x: x, TrainingSet([Pair(air[None], air, "P")]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two body kernels of two patients, and one lung kernel, which must be left out."""
    folder = tmp_path_factory.mktemp("ct")
    for number in ("0025_AGE_0074_CONTRAST_1", "0094_AGE_0052_CONTRAST_0", "0029_AGE_0078_CONTRAST_1"):
        name = f"ID_{number}_CT.dcm"
        (folder / name).write_bytes((SHARED / name).read_bytes())
    return folder


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared CT slices are absent")
class TestRealSlices:
    def test_pairs(self, folder):
        seen = []
        doses = {"abdomen": 0.25, "chest": 0.1}
        pairs = load_pairs(folder, doses, realisations=2, progress=lambda *a: seen.append(a))
        assert pairs.patients == ("TCGA-60-2725", "TCGA-92-8063")
        assert seen[-1] == ("reading", 3, 3)
        for pair in pairs.pairs:
            assert pair.low.shape == (2, 512, 512)
            noise = pair.low - pair.full
            assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02
        result = score(lambda x: x, pairs)
        # A quarter of the dose of an abdomen slice has four times its noise power.
        assert 3.0 < result.power["mid"] < 5.5

    def test_noise_does_not_depend_on_the_neighbours(self, folder, tmp_path):
        name = "ID_0094_AGE_0052_CONTRAST_0_CT.dcm"
        (tmp_path / name).write_bytes((SHARED / name).read_bytes())
        alone = load_pairs(tmp_path, realisations=1).pairs[0]
        among = load_pairs(folder, realisations=1).pairs[1]
        assert np.array_equal(alone.low, among.low)
        assert not np.array_equal(alone.low, load_pairs(tmp_path, realisations=1, seed=1).pairs[0].low)

    def test_both_doses_are_needed(self, folder):
        with pytest.raises(ImageError, match="doses lack chest"):
            load_pairs(folder, {"abdomen": 0.25})

    def test_only_lung_kernels(self, tmp_path):
        name = "ID_0029_AGE_0078_CONTRAST_1_CT.dcm"
        (tmp_path / name).write_bytes((SHARED / name).read_bytes())
        with pytest.raises(ImageError, match="body kernel"):
            load_pairs(tmp_path)
