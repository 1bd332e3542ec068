"""The noise of a slice, measured and drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from ctinv.invariance.data.simulation.noise import noise_level, noise_like


@pytest.fixture(scope="module")
def slice_():
    from ctinv.invariance.data import phantom

    return phantom(np.random.default_rng(3), 384, kind="abdomen")


def test_noise_has_the_level_of_the_image(slice_):
    from ctinv.invariance.data import simulate_low_dose

    image, spacing = slice_.hu, slice_.spacing
    noisy = simulate_low_dose(image, spacing, 0.25, np.random.default_rng(0), input_dose=np.inf)
    noise = noise_like(noisy, 4, np.random.default_rng(0), spacing)
    inside = image > -200
    assert np.std(noise[:, inside]) == pytest.approx(np.std((noisy - image)[inside]), rel=0.2)
    assert abs(noise[:, inside].mean()) < 0.1 * np.std(noise[:, inside])
    np.testing.assert_array_equal(noise_like(noisy, 2, np.random.default_rng(0), spacing), noise[:2])


def test_noise_level_ignores_anatomy(slice_):
    calm = noise_level(slice_.hu)
    noisy = slice_.hu + 20 * np.random.default_rng(0).standard_normal(slice_.hu.shape)
    assert noise_level(noisy) == pytest.approx(20 * np.sqrt(0.93), rel=0.1)
    assert calm < 5
