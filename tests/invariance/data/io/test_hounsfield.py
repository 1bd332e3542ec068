"""Whether numbers can be HU, at both sides of every limit."""

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.hounsfield import doubt_of, refuse_other_quantities


def body(air=0.4, low=-1000.0, seed=0):
    """Air, and a body with values about water, HU, whole numbers."""
    rng = np.random.default_rng(seed)
    hu = np.rint(rng.uniform(-140, 140, (50, 80)))
    hu[:, : round(80 * air)] = low
    return hu


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 255]]), "whole numbers from 0 to 255: a label map"),
        (np.array([[0.0, 3.0]]), "whole numbers from 0 to 3"),
        (np.array([[-1, 1]]), "whole numbers from -1 to 1"),
        (np.array([[-2.0, 64.0]]), "whole numbers from -2 to 64"),
        (np.array([[0.1, 1.1]]), r"spans 0.1 to 1.1, scaled to \[0, 1\]"),
        (np.array([[-0.1, 0.5]]), r"scaled to \[0, 1\]"),
        (np.array([[-0.11, 0.5]]), r"scaled to \[-1, 1\]"),
        (np.array([[-1.1, 1.1]]), r"scaled to \[-1, 1\]"),
        (np.array([[-1.2, 0.5]]), "scaled or standardised"),
        (np.array([[0.5, 1.2]]), "scaled or standardised"),
        (np.array([[-16.0, 15.5]]), "scaled or standardised"),
    ],
)
def test_other_quantities_are_refused(values, words):
    with pytest.raises(ImageError, match=words):
        refuse_other_quantities(values, "a.npy")
    with pytest.raises(ImageError, match=words):
        doubt_of(values, "a.npy")
    assert doubt_of(values, "a.npy", stated=True) == ""


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 256]]),
        np.array([[-1, 65]]),
        np.array([[-3, 10]]),
        np.array([[-2, 0]]),
        np.array([[-16, 16]]),
        np.array([[-16.1, 0.5]]),
        np.array([[0.5, 16.1]]),
    ],
)
def test_what_may_be_hu_is_let_pass(values):
    refuse_other_quantities(values, "a.npy")


@pytest.mark.parametrize("offset", [1000.0, 1024.0, 8192.0, 32768.0])
def test_a_lost_offset_is_named(offset):
    told = doubt_of(body(low=-offset if offset in (1000, 1024) else -1024.0) + offset, "a.npy")
    assert f"these look like HU + {offset:g} (a lost offset); --offset {offset:g} takes it off" in told


def test_air_tells_a_thousand_from_1024():
    """Air that is noisy about its value, nothing clipped: 1024 was added where it lies about 24."""
    noise = np.random.default_rng(1).normal(0, 4, (50, 80))
    for offset in (1000.0, 1024.0):
        stored = np.maximum(body() + noise + offset, 0)
        assert f"HU + {offset:g} " in doubt_of(stored, "a.npy")


def test_no_offset_is_named_where_none_makes_a_body():
    values = np.random.default_rng(0).uniform(2500, 2900, (40, 40))
    told = doubt_of(values, "a.npy")
    assert "no usual offset makes them so" in told
    assert "--offset 0 takes them as they are" in told


@pytest.mark.parametrize(("air", "doubted"), [(0.05, False), (0.2, True)])
def test_an_offset_taken_off_twice_needs_much_far_below_air(air, doubted):
    hu = body(air) - 1024.0
    hu[:, : round(80 * air)] = -2048.0
    assert bool(doubt_of(hu, "a.npy")) == doubted
    if doubted:
        assert "--offset -1024 puts it back" in doubt_of(hu, "a.npy")
    # Padding that far below beside a true body is nothing to doubt.
    true = body(air)
    true[:, : round(80 * air)] = -2048.0
    assert doubt_of(true, "a.npy") == ""


def test_true_hu_are_not_doubted():
    assert doubt_of(body(), "a.npy") == ""
    assert doubt_of(np.full((4, 4), -3024.0), "a.npy") != ""
