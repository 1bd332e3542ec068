"""Projection and reconstruction against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ctinv.invariance.data import parallel_beam

from .grids import grid


class TestProjection:
    @pytest.mark.parametrize("shape", [(64, 64), (63, 64), (48, 80), (81, 51)])
    @pytest.mark.parametrize("aspect", [1.0, 1.25, 0.8])
    @pytest.mark.parametrize("sigma", [3.0, 2.0])
    def test_gaussian_in_closed_form(self, shape, aspect, sigma):
        """One near the middle, and a smaller one near a corner."""
        beam = parallel_beam(shape, 40, aspect)
        y, x = grid(shape, (aspect, 1.0))
        x0, y0 = (5.5, -3.25) if sigma == 3 else (shape[1] / 2 - 11.5, (12.75 - shape[0] / 2) * aspect)
        sinogram = beam.project(np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2)))
        place = x0 * np.cos(beam.angles) + y0 * np.sin(beam.angles)
        peak = math.sqrt(2 * math.pi) * sigma
        expected = peak * np.exp(-((beam.offsets[None] - place[:, None]) ** 2) / (2 * sigma**2))
        assert np.abs(sinogram - expected).max() < 1e-3 * peak

    @pytest.mark.parametrize("shape", [(64, 64), (63, 70)])
    def test_back_projection_is_the_adjoint(self, shape):
        rng = np.random.default_rng(0)
        beam = parallel_beam(shape, 30, 1.25)
        u, v = rng.normal(size=(2, *shape)), rng.normal(size=(2, 30, beam.detectors))
        forward = (beam.project(u) * v).sum(axis=(1, 2)) * beam.pitch / beam.aspect
        np.testing.assert_allclose(forward, (u * beam.back_project(v)).sum(axis=(1, 2)), rtol=1e-4)

    def test_filtered_back_projection_inverts(self):
        y, x = grid((96, 96))
        image = 40 * np.exp(-((x - 10) ** 2 + (y + 8) ** 2) / 60) - 15 * np.exp(-(x**2 + y**2) / 200)
        beam = parallel_beam((96, 96), 160)
        assert np.abs(beam.filtered_back_projection(beam.project(image)) - image).max() < 0.05

    def test_against_scikit_image(self):
        from scipy.ndimage import gaussian_filter
        from skimage.transform import iradon, radon

        y, x = grid((96, 96))
        image = gaussian_filter(np.where(np.hypot(x - 12, y + 5) < 18, 1.0, 0.0), 1.5)
        beam = parallel_beam((96, 96), 45)
        degrees = -np.rad2deg(beam.angles)  # scikit-image turns the other way
        theirs = radon(image, degrees, circle=True)
        ours = beam.project(image)
        cells = [int(np.flatnonzero(beam.offsets == k - 48)[0]) for k in range(96)]
        assert np.abs(ours[:, cells] - theirs.T).max() < 0.01 * theirs.max()
        inner = np.hypot(x, y) < 40
        back = iradon(theirs, degrees, circle=True, filter_name="ramp")
        mine = beam.filtered_back_projection(ours)
        assert np.abs(back - mine)[inner].max() < 0.05
        assert np.abs(mine - image)[inner].mean() <= np.abs(back - image)[inner].mean()

    def test_many_at_once_are_the_same(self):
        rng = np.random.default_rng(0)
        beam = parallel_beam((32, 32), 20)
        stack = rng.normal(size=(2, 3, 32, 32)).astype(np.float32)
        np.testing.assert_allclose(beam.project(stack)[1, 2], beam.project(stack[1, 2]), atol=1e-5)
        sinograms = beam.project(stack)
        np.testing.assert_allclose(
            beam.back_project(sinograms)[1, 2], beam.back_project(sinograms[1, 2]), atol=1e-3
        )
