"""What is told of a series as a whole, and in which order its slices come."""

import numpy as np
import pytest
from ctinv.invariance.data import read
from ctinv.invariance.data.io.order import notes_on, steps_of
from ctinv.invariance.data.io.slices import CTSlice

from .files import dicom, save

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def at(height, **meta):
    blank = np.zeros((8, 8), np.float32)
    return CTSlice(blank, np.ones((8, 8), bool), (0.7, 0.7), (0.0, 0.0, height), AXIAL, None, meta)


@pytest.mark.parametrize("step", [0.4, 1.0, 5.0])
def test_a_gap_is_told_with_how_many_slices_it_lacks(step):
    heights = [0.0, step, 2 * step, 5 * step, 6 * step]
    assert [*notes_on([at(h) for h in heights])] == [
        f"2 slices seem to be missing: gaps of up to {3 * step:g} mm, else {step:g} mm"
    ]
    assert [*notes_on([at(k * step) for k in range(5)])] == []


def test_slices_that_lie_unevenly_are_told():
    assert [*notes_on([at(h) for h in (0.0, 1.0, 2.2, 3.2)])] == ["slices lie unevenly, 1 to 1.2 mm apart"]


def test_frames_at_the_same_places_are_counted_as_phases():
    frames = [at(h, frame=k) for k, h in enumerate([0.0, 1.0, 2.0] * 3)]
    assert "3 phases at the same places, as the order of the frames tells" in [*notes_on(frames)]


def test_distances_are_those_within_one_phase():
    two = [at(0.0, phase="a"), at(2.0, phase="a"), at(0.0, phase="b"), at(2.5, phase="b")]
    assert steps_of(two) == [2.0, 2.5]
    assert "2 phases at the same places" in [*notes_on(two)]


def test_that_identity_was_removed_is_known_of_a_slice(tmp_path, stored):
    plain = save(dicom(stored), tmp_path / "plain.dcm")
    removed = save(dicom(stored, PatientIdentityRemoved="YES"), tmp_path / "removed.dcm")
    assert "deidentified" not in read(plain)[0].meta
    assert read(removed)[0].meta["deidentified"] is True
