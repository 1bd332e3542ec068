"""Bench figures on images whose answers are known."""

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.probing.quality.bias import hu_bias
from ctinv.invariance.probing.quality.noise import noise_figures, streak_index
from ctinv.invariance.probing.quality.transfer import Transfer, task_transfer
from scipy.ndimage import gaussian_filter


def rod(spacing, radius=12.0, contrast=100.0, fine=8, shape=(96, 96), at=(47.3, 48.6)):
    """A rod averaged over pixels."""
    rows, columns = ((np.arange(n * fine) + 0.5) / fine - 0.5 for n in shape)
    disc = np.hypot((rows[:, None] - at[1]) * spacing[0], (columns - at[0]) * spacing[1]) <= radius
    return contrast * disc.reshape(shape[0], fine, shape[1], fine).mean((1, 3))


@pytest.mark.parametrize("spacing", [(0.8, 0.8), (0.6, 0.6)])
@pytest.mark.parametrize("sigma", [0.8, 1.2])
@pytest.mark.parametrize("contrast", [100.0, -15.0])
def test_a_blur_kernel_is_found_again(sigma, spacing, contrast):
    """Its transfer is that of the blurred rod over that of the sharp one."""
    sharp = rod(spacing, contrast=contrast)
    blurred = gaussian_filter(sharp, [sigma / s for s in spacing], truncate=8)
    found, plain = (task_transfer(image, (47.3, 48.6), 12.0, spacing) for image in (blurred, sharp))
    truth = np.exp(-2 * (np.pi * sigma * found.frequency) ** 2)
    used = truth > 0.1
    assert found.value[used] / plain.value[used] == pytest.approx(truth[used], abs=0.02)
    half = Transfer(found.frequency[used], found.value[used] / plain.value[used], 1.0).falls_to(0.5)
    assert half == pytest.approx(np.sqrt(np.log(2) / 2) / (np.pi * sigma), rel=0.02)
    assert found.contrast == pytest.approx(contrast, rel=0.01)


def test_transfer_is_read_on_another_grid_too():
    spacing = (0.8, 0.6)
    blurred = gaussian_filter(rod(spacing, 10.0), [1.0 / s for s in spacing], truncate=8)
    found = task_transfer(blurred, (47.3, 48.6), 10.0, spacing)
    plain = task_transfer(rod(spacing, 10.0), (47.3, 48.6), 10.0, spacing)
    truth = np.exp(-2 * (np.pi * found.frequency) ** 2)
    used = truth > 0.2
    assert found.value[used] / plain.value[used] == pytest.approx(truth[used], abs=0.03)


def coloured(n, shape=(64, 64), seed=0, across=None):
    """Noise with a band around 0.2 cycles per pixel, or with streaks."""
    drawn = np.random.default_rng(seed).normal(size=(n, *shape))
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    power = np.exp(-(((np.hypot(rows, columns) - 0.2) / 0.03) ** 2))
    if across is not None:
        angle = np.mod(np.arctan2(rows, columns + 0 * rows) - across + np.pi / 2, np.pi) - np.pi / 2
        power = power * (np.abs(angle) < np.pi / 24)
    return 10 * np.fft.ifft2(np.fft.fft2(drawn) * np.sqrt(power)).real


def test_spectrum_integrates_to_the_variance_and_peaks_where_it_should():
    images = 40 + coloured(64) + 30 * rod((1, 1), 12.0, 1.0, shape=(64, 64), at=(32, 32))
    found = noise_figures(images, (0.5, 0.5))
    variance = images.var(0, ddof=1).mean()
    assert found.power.integral == pytest.approx(variance, rel=0.01)
    assert found.magnitude == pytest.approx(np.sqrt(variance), rel=0.01)
    assert found.peak == pytest.approx(0.4, abs=0.03)
    assert found.mean == pytest.approx(0.4, rel=0.02)
    assert found.streaks < 0.02


def test_white_noise_has_the_mean_frequency_of_a_disc():
    found = noise_figures(np.random.default_rng(0).normal(size=(200, 48, 48)), (1.0, 1.0))
    assert found.mean == pytest.approx(2 / 3 * 0.5, rel=0.02)
    assert found.radial == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("across", [0.0, np.pi / 4, np.pi / 2])
def test_streaks_are_found_in_any_direction(across):
    streaks = coloured(32, across=across)
    assert streak_index(noise_figures(streaks, (1, 1)).power) > 0.9
    mixed = np.sqrt(0.5) * streaks / streaks.std() + np.sqrt(0.5) * coloured(32, seed=1) / coloured(32).std()
    assert streak_index(noise_figures(mixed, (1, 1)).power) == pytest.approx(0.5, abs=0.12)
    assert streak_index(noise_figures(0 * streaks, (1, 1)).power) == 0


def test_bias_is_told_tissue_by_tissue():
    truth = np.full((60, 80), 50.0)
    truth[:, :20], truth[:, 20:40], truth[:, 60:] = -800, -100, 800
    added = np.select([truth < -500, truth < 0, truth < 300], [4.0, -3.0, 0.5], default=-20.0)
    images = truth + added + np.random.default_rng(0).normal(0, 5, (30, 60, 80))
    found = {b.tissue: b for b in hu_bias(images, truth)}
    wanted = {"lung": 4.0, "fat": -3.0, "soft tissue": 0.5, "bone": -20.0}
    assert set(found) == set(wanted)
    for tissue, value in wanted.items():
        assert found[tissue].value == pytest.approx(value, abs=4 * found[tissue].error)
        assert found[tissue].error == pytest.approx(5 / np.sqrt(30 * found[tissue].pixels), rel=0.5)


@pytest.mark.parametrize(
    ("image", "at", "said"),
    [(np.zeros((96, 96)), (48, 48), "no contrast"), (np.zeros((96, 96)), (10, 48), "larger image")],
)
def test_what_has_no_edge_is_refused(image, at, said):
    with pytest.raises(ImageError, match=said):
        task_transfer(image, at, 12.0, (0.8, 0.8))
