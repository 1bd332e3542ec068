"""Where invariances lie: shares in closed form, planted contrasts, spectra of known law."""

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.audit.regions import TISSUE_RANGES, by_frequency, by_structure, by_tissue
from scipy.ndimage import gaussian_filter

SHAPE = (96, 128)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def test_shares_of_tissues_in_closed_form():
    levels = {"air": -1000, "lung": -800, "fat": -100, "soft": 40, "contrast": 200, "bone": 800}
    image = np.repeat(np.array(list(levels.values()), np.float32), 16)[None].repeat(4, 0)
    stds = np.array([0, 1, 2, 3, 4, 5], np.float32)
    found = by_tissue(np.repeat(stds, 16)[None].repeat(4, 0), image)
    assert [t.tissue for t in found] == list(levels)
    np.testing.assert_allclose([t.area for t in found], 1 / 6)
    np.testing.assert_allclose([t.std for t in found], stds)
    np.testing.assert_allclose([t.share for t in found], stds**2 / 55)


def test_every_value_has_one_tissue():
    image = np.random.default_rng(0).uniform(-3000, 4000, SHAPE).astype(np.float32)
    image[0, : len(TISSUE_RANGES)] = [max(low, -1e6) for low, _ in TISSUE_RANGES.values()]
    found = by_tissue(np.abs(normal(*SHAPE)), image)
    assert sum(t.area for t in found) == pytest.approx(1)
    assert sum(t.share for t in found) == pytest.approx(1)


def test_a_map_of_nothing_has_no_shares():
    found = by_tissue(np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32))
    assert [t.share for t in found] == [0.0] * len(TISSUE_RANGES)
    assert all(t.std == 0 for t in found)


def striped():
    """Flat on the left, stripes on the right."""
    image = np.full(SHAPE, 40, np.float32)
    image[:, 64:] += np.where(np.arange(64) // 4 % 2, 200, -200)
    return image


@pytest.mark.parametrize(("left", "right"), [(10, 5), (5, 10), (7, 7)])
def test_flat_against_structured(left, right):
    std = np.full(SHAPE, left, np.float32)
    std[:, 64:] = right
    std *= 1 + 0.2 * normal(*SHAPE)
    found = by_structure(std, striped())
    assert found.flat == pytest.approx(left, rel=0.03)
    assert found.structured == pytest.approx(right, rel=0.03)
    assert 0.98 * found.low < left / right < 1.02 * found.high
    assert found.low < found.ratio < found.high
    assert found.high - found.low < 0.15 * found.ratio
    assert found == by_structure(std, striped())


def test_the_interval_covers():
    """No difference between the regions, but neighbours alike: the interval must know it."""
    inside = 0
    for seed in range(40):
        std = 10 + 3 * 8 * gaussian_filter(normal(*SHAPE, seed=seed), 4, mode="wrap")
        found = by_structure(std, striped(), draws=300)
        inside += found.low <= 1 <= found.high
    assert inside >= 33


def test_the_mask_restricts_and_air_does_not_count():
    image, std = striped(), np.full(SHAPE, 3, np.float32)
    image[:20], std[:20] = -1000, 500
    found = by_structure(std, image, part=0.2)
    assert found.flat == found.structured == 3
    none = np.zeros(SHAPE, bool)
    assert by_structure(std, image, mask=none) is None
    assert by_structure(np.zeros(SHAPE, np.float32), image) is None


def wave(period, phase=0.0):
    return np.cos(2 * np.pi * (np.arange(128) / period + phase))[None].repeat(128, 0).astype(np.float32)


@pytest.mark.parametrize("spacing", [None, (0.5, 0.5)])
def test_spectra_of_waves_and_white_noise(spacing):
    amplitudes = np.array([3.0, -1.0, 2.0], np.float32)
    changes = amplitudes[:, None, None] * wave(16)
    noise = 5 * normal(6, 128, 128)
    found = by_frequency(changes, noise, spacing)
    pixel = 1.0 if spacing is None else 0.5
    assert found.unit == ("cycles/pixel" if spacing is None else "cycles/mm")
    assert found.median_changes == pytest.approx(1 / 16 / pixel, rel=1e-3)
    assert found.frequency[found.changes.argmax()] == pytest.approx(1 / 16 / pixel, rel=0.1)
    # White noise: equal power everywhere, half of the square of frequencies lies below sqrt(1 / (2 pi)).
    np.testing.assert_allclose(found.noise[4:], 25 * pixel**2, rtol=0.3)
    assert found.median_noise == pytest.approx(np.sqrt(1 / (2 * np.pi)) / pixel, rel=0.02)
    assert found.low_noise == pytest.approx(np.pi * 0.05**2, rel=0.2)
    assert found.low_share == pytest.approx(0, abs=1e-6)


def test_what_all_changes_share_does_not_count():
    changes = 100 * wave(64) + np.array([1, -1], np.float32)[:, None, None] * wave(4)
    found = by_frequency(changes, normal(2, 128, 128))
    assert found.median_changes == pytest.approx(1 / 4)
    assert by_frequency(changes[:1], normal(2, 128, 128)).median_changes == pytest.approx(1 / 64)


def test_no_change_has_a_spectrum_of_zeros():
    found = by_frequency(np.zeros((3, 32, 32), np.float32), normal(2, 32, 32))
    assert found.low_share == 0
    assert not found.changes.any()


@pytest.mark.parametrize("call", [by_tissue, by_structure])
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(ImageError, match="must be one slice"):
        call(np.zeros((8, 8), np.float32), np.zeros((8, 9), np.float32))


def test_changes_and_noise_of_other_sizes_are_refused():
    with pytest.raises(ImageError, match="must agree"):
        by_frequency(np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 9), np.float32))
