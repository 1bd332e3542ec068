"""The dose that a slice was taken with, told from its noise, and its low-dose twin."""

from pathlib import Path

import numpy as np
import pytest
from ctinv.invariance.data import CTSlice, simulate_low_dose
from ctinv.invariance.data.lowdose import exposure, low_dose, measured_fluence
from ctinv.invariance.data.simulation.dose import REFERENCE_FLUENCE


def disc(size=192, value=40.0):
    rows, columns = np.mgrid[:size, :size] - size / 2
    return np.where(np.hypot(rows, columns) < 0.46 * size, value, -1000.0).astype(np.float32)


@pytest.mark.parametrize("share", [0.25, 1.0, 2.0])
def test_the_measured_fluence_finds_the_dose_a_slice_was_taken_with(share):
    clean = disc(160)
    rng = np.random.default_rng(0)
    taken = simulate_low_dose(
        clean, (1.2, 1.2), 1.0, rng, input_dose=np.inf, reference_fluence=share * REFERENCE_FLUENCE
    )
    found = measured_fluence(taken, (1.2, 1.2), "smooth", np.random.default_rng(1))
    assert found / REFERENCE_FLUENCE == pytest.approx(share, rel=0.15)


def test_the_measured_fluence_without_soft_tissue():
    air = np.full((64, 64), -1000.0, dtype=np.float32)
    assert measured_fluence(air, (1.0, 1.0), "smooth", np.random.default_rng(0)) is None


def slice_of(name, hu, **meta):
    return CTSlice(hu, np.ones(hu.shape, bool), (1.2, 1.2), source=Path(name), meta=meta)


def test_noise_depends_on_the_slice_and_the_seed_alone():
    one = slice_of("a.dcm", disc(96))
    low, full = low_dose(one, (1.2, 1.2), "P", seed=0, count=2)
    assert low.shape == (2, 96, 96)
    np.testing.assert_array_equal(full, one.hu)
    again, _ = low_dose(one, (1.2, 1.2), "P", seed=0, count=1)
    np.testing.assert_array_equal(again[0], low[0])
    changes = [
        low_dose(slice_of("b.dcm", one.hu), (1.2, 1.2), "P", seed=0)[0],
        low_dose(one, (1.2, 1.2), "Q", seed=0)[0],
        low_dose(one, (1.2, 1.2), "P", seed=1)[0],
        low_dose(slice_of("a.dcm", one.hu, frame=1), (1.2, 1.2), "P", seed=0)[0],
        low[1:],
    ]
    assert all(
        abs(np.corrcoef((other[0] - full).ravel(), (low[0] - full).ravel())[0, 1]) < 0.1 for other in changes
    )


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_noise_added_follows_the_noise_there(share):
    """A quarter of a slice's own dose adds three times its own noise power, however thick the slice is."""
    clean, rng = disc(160), np.random.default_rng(0)
    taken = simulate_low_dose(
        clean, (1.2, 1.2), 1.0, rng, input_dose=np.inf, reference_fluence=share * REFERENCE_FLUENCE
    )
    low, full = low_dose(slice_of("a", taken), (1.2, 1.2), "P", seed=0)
    middle = (slice(60, 100), slice(60, 100))
    added, own = (low[0] - full)[middle].var(), (taken - clean)[middle].var()
    assert added / own == pytest.approx(3, rel=0.3)


def test_a_sharp_kernel_makes_finer_noise():
    def fine(kernel):
        low, full = low_dose(slice_of("a", disc(160), kernel=kernel), (0.8, 0.8), "P", seed=0)
        noise = (low[0] - full)[60:100, 60:100]
        return np.square(np.diff(noise, axis=0)).mean() / noise.var()

    assert fine("B70f") > 1.5 * fine("B30f")


def test_a_larger_body_is_given_more_photons_and_a_chest_fewer():
    small, large = (exposure(np.zeros((n, n), np.float32), (1.0, 1.0), "abdomen") for n in (200, 300))
    assert large > small
    assert exposure(np.zeros((200, 200), np.float32), (1.0, 1.0), "chest") == pytest.approx(small / 2)
