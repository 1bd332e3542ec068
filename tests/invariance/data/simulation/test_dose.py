"""The projector against closed forms and scikit-image; the dose simulation against its physics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import dose_pair, noise_power, noise_realisations, simulate_low_dose
from ctinv.invariance.data.simulation.dose import KERNELS, MU_WATER, _Scan, bowtie, kernel_window

from .grids import grid

SIZE, SPACING = 96, (3.6, 3.6)


def cylinder(radius=120.0, hu=0.0, size=SIZE, spacing=SPACING):
    y, x = grid((size, size), spacing)
    return np.where(np.hypot(x, y) < radius, hu, -1000.0).astype(np.float32)


class TestLaws:
    """What must hold for any object, kernel and dose."""

    def spread(self, dose, n=24, where=60.0, seed=0, **options):
        hu = cylinder()
        images = noise_realisations(hu, SPACING, dose, n, np.random.default_rng(seed), **options)
        noise = np.stack(list(images)) - hu
        y, x = grid(hu.shape, SPACING)
        return noise[:, np.hypot(x, y) < where]

    @pytest.mark.parametrize("kernel", list(KERNELS))
    @pytest.mark.parametrize("dose", [0.5, 0.25, 0.1])
    def test_variance_goes_as_one_over_dose(self, kernel, dose):
        options = {"kernel": kernel, "input_dose": math.inf, "electronic_noise": 0.0}
        full = self.spread(1.0, **options).var()
        assert self.spread(dose, seed=1, **options).var() * dose == pytest.approx(full, rel=0.05)

    @pytest.mark.parametrize("dose", [0.5, 0.25, 0.1])
    def test_added_variance_is_what_is_missing(self, dose):
        full = self.spread(1.0, input_dose=math.inf, electronic_noise=0.0).var()
        added = self.spread(dose, seed=1, electronic_noise=0.0).var()
        assert added == pytest.approx((1 / dose - 1) * full, rel=0.05)

    def test_electronic_noise_goes_as_one_over_dose_squared(self):
        options = {"input_dose": math.inf, "reference_fluence": 1e7}

        def electronic(dose, seed):
            both = self.spread(dose, seed=seed, electronic_noise=3000.0, **options).var()
            return both - self.spread(dose, seed=seed + 1, electronic_noise=0.0, **options).var()

        assert electronic(0.5, 0) == pytest.approx(4 * electronic(1.0, 2), rel=0.08)

    @pytest.mark.parametrize("dose", [1.0, 0.25, 0.05])
    def test_mean_is_kept(self, dose):
        noise = self.spread(dose, n=40, input_dose=math.inf)
        assert abs(noise.mean()) < 1.0
        assert abs(noise.mean()) < 0.01 * noise.std()

    @pytest.mark.parametrize("axis", [0, 1])
    def test_air_beside_the_body_changes_no_noise_in_it(self, axis):
        """The slice is then no square: what was taken for its other shape would be cut up."""
        hu, beside = cylinder(100.0, size=64), [(0, 0), (0, 0)]
        beside[axis] = (16, 32)
        wide = np.pad(hu, beside, constant_values=-1000.0)
        spreads = []
        for image in (hu, wide):
            drawn = noise_realisations(
                image, SPACING, 0.25, 24, np.random.default_rng(0), input_dose=math.inf
            )
            noise = np.stack(list(drawn)) - image
            body = image > -500
            spreads.append((noise[:, body].std(), noise[:, ~body].std()))
        assert spreads[1][0] == pytest.approx(spreads[0][0], rel=0.05)
        assert spreads[1][1] < 0.8 * spreads[1][0]

    def test_same_seed_same_noise_and_realisations_differ(self):
        hu = cylinder()
        a, b = noise_realisations(hu, SPACING, 0.25, 2, np.random.default_rng(7))
        c = simulate_low_dose(hu, SPACING, 0.25, np.random.default_rng(7))
        np.testing.assert_array_equal(a, c)
        inside = hu > -500
        assert abs(np.corrcoef((a - hu)[inside], (b - hu)[inside])[0, 1]) < 0.1
        assert a.dtype == np.float32

    def test_full_dose_changes_nothing(self):
        hu = cylinder()
        np.testing.assert_array_equal(simulate_low_dose(hu, SPACING, 1.0, np.random.default_rng(0)), hu)

    def test_input_is_not_touched(self):
        hu = cylinder()
        before = hu.copy()
        simulate_low_dose(hu, SPACING, 0.25, np.random.default_rng(0))
        np.testing.assert_array_equal(hu, before)

    def test_pair_shares_the_full_doses_noise(self):
        hu = cylinder()
        x, y = zip(*(dose_pair(hu, SPACING, 0.25, np.random.default_rng(i)) for i in range(24)), strict=True)
        inside = cylinder(60.0) > -500
        full, low = (np.stack(v)[:, inside] - hu[inside] for v in (y, x))
        assert low.var() / full.var() == pytest.approx(4.0, rel=0.08)
        assert np.mean((low - full) * full) == pytest.approx(0.0, abs=0.05 * float(full.var()))
        assert full.var() == pytest.approx(self.spread(1.0, input_dose=math.inf).var(), rel=0.08)


class TestTexture:
    @pytest.mark.parametrize("kernel", list(KERNELS))
    def test_spectrum_is_ramp_times_kernel_and_integrates_to_the_variance(self, kernel):
        # In the middle of a wide homogeneous object all rays see about the same photons, so that the
        # noise is stationary there: NPS(f) ~ |f| window(f)^2.
        spacing = (1.0, 1.0)
        hu = cylinder(radius=200.0, size=96, spacing=spacing)  # covers the image
        noise = np.stack(
            list(noise_realisations(hu, spacing, 0.25, 60, np.random.default_rng(0), kernel=kernel))
        )
        found = noise_power(noise[:, 32:64, 32:64], spacing)
        assert found.integral == pytest.approx(found.variance, rel=1e-9)
        frequency, power = found.radial(10)
        keep = (frequency > 0.04) & (frequency < 0.45)
        shape = frequency * kernel_window(kernel, frequency) ** 2
        strong = keep & (shape > 0.05 * shape.max())
        ratio = power[strong] / shape[strong]
        assert strong.sum() >= 5
        np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=0.2)

    def test_absolute_level_in_closed_form(self):
        # A homogeneous disc's centre: every ray there has the same photons, and the variance is
        # (pi / views)^2 * views * sum over the filter^2 / photons, in attenuation.
        size, spacing, radius = 128, 2.0, 100.0
        hu = cylinder(radius=radius, size=size, spacing=(spacing, spacing))
        rng = np.random.default_rng(0)
        fluence = 1e6
        images = noise_realisations(
            hu,
            (spacing, spacing),
            0.5,
            40,
            rng,
            input_dose=math.inf,
            reference_fluence=fluence,
            electronic_noise=0.0,
        )
        y, x = grid(hu.shape, (spacing, spacing))
        middle = np.hypot(x, y) < 16
        found = np.var(np.stack(list(images))[:, middle] - hu[middle])
        photons_per_mm = 0.5 * fluence * 1000 * math.exp(-2 * radius * MU_WATER)  # all views together
        f = np.linspace(0, 0.5 / spacing, 2000)
        integral = 2 * np.trapezoid((f * kernel_window("smooth", f)) ** 2, f)
        mu_variance = math.pi**2 * integral / photons_per_mm
        assert found == pytest.approx(mu_variance * (1000 / MU_WATER) ** 2, rel=0.06)

    def test_pixel_size_does_not_change_the_physics(self):
        # The smooth kernel cuts well below both Nyquist frequencies.
        spread = []
        for size, spacing in ((64, 0.7), (112, 0.4)):
            hu = np.zeros((size, size), np.float32)
            noise = np.stack(
                list(noise_realisations(hu, (spacing, spacing), 0.25, 30, np.random.default_rng(0)))
            )
            middle = slice(size // 2 - size // 8, size // 2 + size // 8)
            spread.append(noise[:, middle, middle].std())
        assert spread[0] == pytest.approx(spread[1], rel=0.05)

    def test_streaks_run_between_dense_objects(self):
        hu = cylinder(150.0)
        y, x = grid(hu.shape, SPACING)
        for side in (-80, 80):
            hu[np.hypot(x - side, y) < 28] = 1500.0
        noise = np.stack(list(noise_realisations(hu, SPACING, 0.25, 24, np.random.default_rng(0)))) - hu
        middle = (np.abs(x) < 35) & (np.abs(y) < 12)
        away = (np.abs(x) < 35) & (np.abs(y - 90) < 12)
        assert noise[:, middle].var() > 1.5 * noise[:, away].var()
        rows, columns = np.flatnonzero(middle.any(1)), np.flatnonzero(middle.any(0))
        patch = noise[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        along = np.mean(patch[:, :, 1:] * patch[:, :, :-1]) / np.mean(patch**2)
        across = np.mean(patch[:, 1:] * patch[:, :-1]) / np.mean(patch**2)
        assert along > across + 0.3  # streaks lie along the line that joins the two

    def test_kernels_fall_to_one_half_where_they_are_said_to(self):
        for kernel, half in (("smooth", 0.35), ("sharp", 0.75)):
            assert kernel_window(kernel, np.array([0.0, half, -half])) == pytest.approx(
                [1.0, 0.5, 0.5], abs=0.02
            )
            assert kernel_window(kernel, np.array([KERNELS[kernel][0]]))[0] == 0.0
        assert kernel_window("sharp", np.array([0.4]))[0] > 0.9  # edges are kept

    def test_bowtie_evens_out_a_water_cylinder(self):
        offset = np.linspace(-200, 200, 41)
        fluence = bowtie(offset)
        assert fluence.max() == fluence[20] == 1.0
        np.testing.assert_array_equal(fluence, fluence[::-1])
        assert (np.diff(fluence[20:]) <= 0).all()


class TestLevels:
    """Routine-dose noise of a medium abdomen, at pixels of 0.7 mm (coarser here, which changes little)."""

    def test_abdomen(self):
        size, spacing = 256, 1.4
        y, x = grid((size, size), (spacing, spacing))
        hu = np.where((x / 170) ** 2 + (y / 125) ** 2 < 1, 50.0, -1000.0).astype(np.float32)
        middle = np.hypot(x, y) < 60

        def level(dose):
            image = simulate_low_dose(
                hu, (spacing, spacing), dose, np.random.default_rng(0), input_dose=math.inf
            )
            return (image - hu)[middle].std()

        assert 10 < level(1.0) < 20
        assert 20 < level(0.25) < 35


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dose": 0.0}, "0 < dose <= 1"),
            ({"dose": 1.5}, "0 < dose <= 1"),
            ({"dose": math.nan}, "0 < dose <= 1"),
            ({"dose": 0.5, "input_dose": 0.25}, "only less can be simulated"),
            ({"kernel": "bone"}, "smooth, medium, sharp"),
            ({"spacing": (0.0, 1.0)}, "positive lengths"),
            ({"spacing": (math.nan, 1.0)}, "positive lengths"),
            ({"hu": np.zeros((2, 20, 20), np.float32)}, r"give \(H, W\)"),
            ({"hu": np.zeros((4, 20), np.float32)}, "8 x 8"),
            ({"hu": np.full((20, 20), np.nan, np.float32)}, "NaN"),
        ],
    )
    def test_senseless_input(self, change, words):
        given = {
            "hu": cylinder(size=32),
            "spacing": SPACING,
            "dose": 0.25,
            "rng": np.random.default_rng(0),
        } | change
        with pytest.raises(ImageError, match=words):
            simulate_low_dose(**given)


class TestRays:
    """Each part of the model by itself."""

    def test_the_bowtie_lets_through_what_its_glass_says(self):
        middle, rim = math.exp(-0.5 * MU_WATER * 64.0), math.exp(-0.5 * MU_WATER * 320.0)
        found = bowtie(np.array([0.0, 96.0, -96.0, 160.0, 500.0]))
        np.testing.assert_allclose(found, [1.0, middle, middle, rim, rim])

    def test_kernels_in_closed_form(self):
        smooth = kernel_window("smooth", np.array([0.0, 0.35, -0.35, 0.175, 0.7, 0.9]))
        np.testing.assert_allclose(smooth, [1, 0.5, 0.5, (1 + math.sqrt(0.5)) / 2, 0, 0], atol=1e-12)
        sharp = kernel_window("sharp", np.array([0.0, 0.575, 1.15, 2.0]))
        np.testing.assert_allclose(sharp, [1, 0.75, 0, 0], atol=1e-12)

    @pytest.mark.parametrize(
        ("photons", "dose", "before", "electronic", "variance"),
        [
            (1e5, 1.0, math.inf, 0.0, 1e-5),
            (1e5, 0.25, math.inf, 0.0, 4e-5),
            (1e5, 0.25, 0.5, 0.0, 2e-5),
            (20.0, 0.5, math.inf, 0.0, 0.1),  # a Poisson count of 10
            (0.1, 1.0, math.inf, 0.0, 1.0),  # a Poisson count of 1 at least
            (1e5, 0.5, math.inf, 300.0, 2e-5 + 4 * 300.0 / 1e10),
            (1e5, 0.5, 1.0, 3e5, 1e-5 + 3 * 3e5 / 1e10),
            (1e5, 0.5, math.inf, 1e12, 1 + 2e-5),  # no more than the signal itself
        ],
    )
    def test_variance_of_a_ray(self, photons, dose, before, electronic, variance):
        scan = _Scan(cylinder(size=64), SPACING, "smooth", 1e6, 0.0)
        scan.photons = np.full((300, 200), photons, np.float32)
        scan.electronic = electronic
        noise = scan.noise(dose, before, np.random.default_rng(0))
        assert noise.var() == pytest.approx(variance, rel=0.03)
        assert abs(noise.mean()) < 4 * math.sqrt(variance / noise.size)

    def test_photons_behind_a_cylinder(self):
        """Per ray: fluence times its share of detector and views, bowtie and attenuation."""
        size, spacing = 64, (4.0, 4.0)
        scan = _Scan(cylinder(100.0, 0.0, size, spacing), spacing, "smooth", 1e6, 10.0)
        views = math.ceil(math.pi / 2 * size)
        cell = 4.0 * 1000.0 / views
        middle = scan.beam.detectors // 2
        wanted = 1e6 * cell * math.exp(-MU_WATER * 200.0)
        np.testing.assert_allclose(scan.photons[:, middle], wanted, rtol=0.1)
        at = np.abs(scan.beam.offsets * 4.0) > 110.0
        air = 1e6 * cell * bowtie(scan.beam.offsets[at] * 4.0)
        np.testing.assert_allclose(scan.photons[:, at], np.broadcast_to(air, (views, at.sum())), rtol=0.05)
        assert scan.electronic == pytest.approx(100.0 * cell)
        assert scan.photons.shape == (views, scan.beam.detectors)
