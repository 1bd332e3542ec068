"""Image quality and noise power against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import WINDOWS, noise_power, quality
from ctinv.invariance.data.metrics import fine_share, transfer_cut_off
from scipy import ndimage


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    y = rng.uniform(-150, 250, (3, 32, 40))
    return y + rng.normal(0, 10, y.shape), y


class TestQuality:
    def test_windows_are_the_published_ones(self):
        found = {part: (window.centre, window.width) for part, window in WINDOWS.items()}
        assert found == {"chest": (-600, 1500), "abdomen": (50, 400), "head": (40, 80)}

    def test_constant_offset_in_closed_form(self):
        y = np.full((2, 16, 16), 50.0)
        found = quality(y + 10, y, "abdomen")
        assert found.rmse == pytest.approx(10)
        assert found.psnr == pytest.approx(20 * math.log10(400 / 10))
        c1 = (0.01 * 400) ** 2
        assert found.ssim == pytest.approx((2 * 50 * 60 + c1) / (50**2 + 60**2 + c1))
        assert (found.window, found.data_range, found.n) == ((50.0, 400.0), 400.0, 2)

    def test_only_the_window_counts(self, images):
        x, y = images
        far = y + np.where(y < 0, -500, 0)
        low, high = -100, 100
        clipped = quality(np.clip(x, low, high), np.clip(y, low, high), None, data_range=200)
        inside = quality(x, y, (0, 200))
        assert (inside.rmse, inside.psnr, inside.ssim) == pytest.approx(
            (clipped.rmse, clipped.psnr, clipped.ssim)
        )
        assert quality(np.where(y < -100, far, y), y, (0, 200)).rmse == 0.0

    def test_equal_images(self, images):
        _, y = images
        found = quality(y, y, "chest")
        assert (found.rmse, found.psnr, found.ssim) == (0.0, math.inf, pytest.approx(1.0))

    def test_is_a_mean_over_images(self, images):
        x, y = images
        each = [quality(a, b, "abdomen") for a, b in zip(x, y, strict=True)]
        both = quality(x[:, None], y[:, None], "abdomen")
        assert both.n == 3
        for name in ("rmse", "psnr", "ssim"):
            assert getattr(both, name) == pytest.approx(np.mean([getattr(e, name) for e in each]))

    def test_symmetric(self, images):
        x, y = images
        assert quality(x, y, "head") == quality(y, x, "head")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"window": "neck"}, "chest, abdomen, head"),
            ({"window": (0, 0)}, "positive width"),
            ({"window": None}, "data_range"),
            ({"data_range": 100.0}, "one or the other"),
            ({"image": np.zeros((32, 41))}, "must agree"),
            ({"image": np.zeros(5)}, r"give \(H, W\)"),
            ({"image": np.full((3, 32, 40), np.nan)}, "NaN"),
        ],
    )
    def test_refused(self, images, change, words):
        given = {"image": images[0], "reference": images[1], "window": "abdomen"} | change
        with pytest.raises(ImageError, match=words):
            quality(**given)

    def test_too_small_for_ssim(self):
        with pytest.raises(ImageError, match="too small"):
            quality(np.zeros((8, 8)), np.ones((8, 8)), "head")


class TestNoisePower:
    @pytest.mark.parametrize("about", ["ensemble", "image", "nothing"])
    @pytest.mark.parametrize("shape", [(32, 32), (31, 48)])
    def test_integral_is_the_variance(self, about, shape):
        noise = np.random.default_rng(0).normal(3, 12, (9, *shape))
        found = noise_power(noise, (0.7, 0.9), about=about)
        assert found.integral == pytest.approx(found.variance, rel=1e-10)
        expected = {
            "ensemble": noise.var(axis=0, ddof=1).mean(),
            "image": noise.var(axis=(1, 2)).mean(),
            "nothing": np.square(noise).mean(),
        }
        assert found.variance == pytest.approx(expected[about], rel=1e-10)

    def test_white_noise_is_flat_at_variance_times_pixel_area(self):
        noise = np.random.default_rng(0).normal(0, 20, (200, 32, 32))
        found = noise_power(noise, (0.5, 0.5))
        _, power = found.radial(8)
        np.testing.assert_allclose(power, 400 * 0.25, rtol=0.04)
        assert found.n == 200

    def test_structure_shared_by_all_images_drops_out(self):
        rng = np.random.default_rng(0)
        noise = rng.normal(0, 5, (6, 24, 24))
        anatomy = rng.normal(0, 300, (24, 24))
        np.testing.assert_allclose(
            noise_power(noise + anatomy, (1, 1)).nps, noise_power(noise, (1, 1)).nps, rtol=1e-8
        )

    def test_a_single_wave_in_closed_form(self):
        x = np.arange(64) * 0.5
        wave = 10 * np.cos(2 * np.pi * 0.25 * x)[None] * np.ones((64, 1))  # 8 periods over 32 mm
        found = noise_power(wave[None], (0.5, 0.5), about="nothing")
        row, column = np.unravel_index(found.nps.argmax(), found.nps.shape)
        assert (found.rows[row], abs(found.columns[column])) == (0.0, pytest.approx(0.25))
        assert found.nps.max() * (1 / 32) ** 2 == pytest.approx(25.0)  # half of 10^2 / 2, HU^2
        frequency, power = found.radial()
        assert frequency[power.argmax()] == pytest.approx(0.25, abs=1 / 32)

    def test_power_of_white_noise_about_surfaces_is_its_variance(self):
        found = noise_power(np.random.default_rng(0).normal(0, 12, (200, 32, 32)), (1, 1), about="surface")
        radius = np.hypot(found.rows[:, None], found.columns)
        assert found.nps[radius >= 0.1].mean() == pytest.approx(144, rel=0.03)

    def test_a_trend_is_not_noise(self):
        rows, columns = np.mgrid[:32, :24] / 31.0
        trend = 5 + 30 * rows - 12 * columns + 8 * rows * columns + 20 * rows**2
        found = noise_power(np.stack([trend, -2 * trend]), (1, 1), about="surface")
        assert found.nps.max() < 1e-15 * (trend**2).sum()

    @pytest.mark.parametrize(
        ("noise", "spacing", "about", "words"),
        [
            (np.zeros((1, 8, 8)), (1, 1), "ensemble", "two or more"),
            (np.zeros((2, 8, 8)), (0, 1), "ensemble", "positive lengths"),
            (np.zeros((2, 8, 8)), (1, 1), "median", "ensemble, image, surface or nothing"),
            (np.zeros((2, 1, 8)), (1, 1), "image", "no spectrum"),
        ],
    )
    def test_refused(self, noise, spacing, about, words):
        with pytest.raises(ImageError, match=words):
            noise_power(noise, spacing, about=about)


class TestFrequencies:
    @pytest.mark.parametrize("sigma", [1.0, 2.0])
    def test_a_gaussian_passes_half_where_its_transfer_says(self, sigma):
        """``exp(-2 (pi sigma f)^2)`` is one half at f = 0.1874 / sigma."""
        noise = np.random.default_rng(0).standard_normal((240, 320))
        smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
        half = math.sqrt(math.log(2) / 2) / (math.pi * sigma)
        assert transfer_cut_off(smooth, noise) == pytest.approx(half, abs=1 / 64)
        assert transfer_cut_off(noise + 7, noise) == 0.5
        assert transfer_cut_off(0 * noise, noise) == 0

    def test_fine_energy_of_waves(self):
        rows, columns = np.mgrid[:40, :60]
        slow, fast = np.cos(2 * np.pi * 0.1 * columns), np.cos(2 * np.pi * 0.4 * rows)
        finest = (-1.0) ** columns
        for change, share in (
            (slow, 0),
            (fast, 1),
            (finest, 1),
            (slow + 2 * fast, 0.8),
            (slow + finest, 2 / 3),
        ):
            assert fine_share(np.stack([change, 3 * change])) == pytest.approx(share, abs=1e-9)
        assert fine_share(np.zeros((1, 8, 8))) == 0
        white = np.random.default_rng(0).standard_normal((4, 128, 96))
        assert fine_share(white) == pytest.approx(
            1 - np.pi / 16, abs=0.01
        )  # a disc of the square's unit area
