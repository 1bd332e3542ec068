"""Phantoms: reproducible, anatomical, with a known truth, and close to real slices in their statistics."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import body_mask, find_series, phantom, simulate_low_dose
from ctinv.invariance.data.phantoms.canvas import Canvas, texture
from ctinv.invariance.data.phantoms.phantom import KINDS
from ctinv.invariance.data.phantoms.tissues import LABELS, TISSUES

DATA = Path(__file__).parents[5] / "shared" / "data" / "ct" / "tcga"


def made(seed, kind, size=192, **options):
    return phantom(np.random.default_rng(seed), size, kind=kind, **options)


@pytest.mark.parametrize("kind", KINDS)
class TestLaws:
    def test_shape_units_and_truth(self, kind):
        found = made(0, kind)
        assert found.hu.shape == found.labels.shape == (192, 192)
        assert found.hu.dtype == np.float32
        assert np.isfinite(found.hu).all()
        assert -1024 <= found.hu.min() < -980
        assert 300 < found.hu.max() < 3071
        assert found.labels.max() < len(TISSUES)
        assert 280 < found.spacing[0] * 192 < 520  # field of view in mm

    def test_same_seed_same_slice(self, kind):
        a, b, c = made(3, kind), made(3, kind), made(4, kind)
        np.testing.assert_array_equal(a.hu, b.hu)
        assert not np.array_equal(a.hu, c.hu)

    @pytest.mark.parametrize("seed", range(6))
    def test_labels_match_hu(self, kind, seed):
        found = made(seed, kind, lesions=0)

        def median(name):
            inside = found.labels == LABELS[name]
            return np.median(found.hu[inside]) if inside.sum() > 30 else None

        for name, low, high in (
            ("air", -1001, -990),
            ("fat", -140, -40),
            ("muscle", -10, 90),
            ("gas", -1000, -500),
        ):
            value = median(name)
            assert value is None or low < value < high, name
        assert median("bone") > 150
        if kind == "thorax":
            assert -1000 < median("lung") < -700

    @pytest.mark.parametrize("seed", range(6))
    def test_has_its_organs_inside_one_body(self, kind, seed):
        found = made(seed, kind)
        share = np.bincount(found.labels.ravel(), minlength=len(TISSUES)) / found.labels.size
        expected = ("fat", "muscle", "bone", "marrow", "skin", "cord")
        expected += ("lung",) if kind == "thorax" else ("bowel", "vessel")
        for name in expected:
            assert share[LABELS[name]] > 0.0005, name
        body = body_mask(found.hu)
        assert 0.2 < body.mean() < 0.9
        if kind == "thorax":
            assert share[LABELS["lung"]] > 0.08

    def test_lesions_are_where_they_are_said_to_be(self, kind):
        total = 0
        for seed in range(8):
            found = made(seed, kind, lesions=2)
            total += len(found.lesions)
            for lesion in found.lesions:
                assert found.labels[lesion.centre] == LABELS["lesion"]
                y, x = np.ogrid[:192, :192]
                away = np.hypot(y - lesion.centre[0], x - lesion.centre[1]) * found.spacing[0]
                inside = found.labels[away < lesion.radius * 0.7] == LABELS["lesion"]
                assert inside.mean() > 0.9
                area = (found.labels == LABELS["lesion"]).sum() * found.spacing[0] ** 2
                assert area > 0.4 * np.pi * lesion.radius**2
        assert total >= 6
        assert made(0, kind, lesions=0).lesions == ()

    def test_contrast_of_large_lesions_is_the_stated_one(self, kind):
        errors = []
        for seed in range(16):
            found = made(seed, kind, lesions=1)
            for lesion in found.lesions:
                if lesion.radius < 7 or lesion.kind == "ground glass":
                    continue
                y, x = np.ogrid[:192, :192]
                away = np.hypot(y - lesion.centre[0], x - lesion.centre[1]) * found.spacing[0]
                around = (away > lesion.radius * 1.5) & (away < lesion.radius * 2.4)
                organ = LABELS["lung"] if kind == "thorax" else (LABELS["liver"], LABELS["kidney"])
                around &= np.isin(found.labels, organ)
                if around.sum() < 40:
                    continue
                contrast = np.median(found.hu[away < lesion.radius * 0.4]) - np.median(found.hu[around])
                errors.append(abs(contrast - lesion.contrast) / max(abs(lesion.contrast), 60))
        assert errors
        assert np.median(errors) < 0.25


def test_edges_are_anti_aliased():
    canvas = Canvas(64, 1.0, np.random.default_rng(0))
    canvas.paint(canvas.blob(0.3, -0.2, 17.0, 17.0), 0.0, 1)
    area = (canvas.hu + 1000).sum() / 1000
    assert area == pytest.approx(np.pi * 17**2, rel=0.003)
    assert ((canvas.hu > -990) & (canvas.hu < -10)).any()


def test_a_stroke_has_its_length_and_width():
    canvas = Canvas(128, 0.5, np.random.default_rng(0))
    canvas.paint(canvas.stroke(-10.0, -4.0, 12.0, 8.0, 3.0, 3.0), 0.0, 1)
    length = np.hypot(22, 12)
    area = (canvas.hu + 1000).sum() / 1000 * 0.25
    assert area == pytest.approx(length * 6 + np.pi * 9, rel=0.01)


def test_shapes_beyond_the_canvas_do_no_harm():
    canvas = Canvas(32, 1.0, np.random.default_rng(0))
    canvas.paint(canvas.blob(500.0, 500.0, 5.0, 5.0), 0.0, 1)
    canvas.paint(canvas.stroke(-500.0, 0.0, -400.0, 0.0, 2.0, 2.0), 0.0, 1)
    assert (canvas.hu == -1000).all()


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_texture_has_its_spectrum(slope):
    field = texture(np.random.default_rng(0), 256, 1.0, 200.0, slope)
    assert field.mean() == pytest.approx(0.0, abs=1e-3)
    assert field.std() == pytest.approx(1.0, abs=1e-3)
    power = np.abs(np.fft.fft2(field)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    bands = [(0.1, 0.12), (0.4, 0.44)]
    low, high = (power[(f > a) & (f < b)].mean() for a, b in bands)
    assert np.log(low / high) / np.log(0.42 / 0.11) == pytest.approx(slope, abs=0.15)


def test_refused():
    with pytest.raises(ImageError, match="thorax, abdomen"):
        made(0, "head")
    with pytest.raises(ImageError, match="64 or more"):
        made(0, "thorax", size=32)


def bands(images):
    """Mean power of 64-pixel patches of the body in six frequency bands, log10, and the HU histogram."""
    edges = [-1100, -950, -820, -500, -150, -90, -40, 10, 50, 100, 200, 500, 4000]
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    taper = np.hanning(64)[:, None] * np.hanning(64)
    rng = np.random.default_rng(0)
    power, histogram = np.zeros((64, 64)), np.zeros(len(edges) - 1)
    for image in images:
        body = body_mask(image)
        histogram += np.histogram(image[body], edges)[0] / body.sum() / len(images)
        places = np.argwhere(body)
        for _ in range(20):
            top, left = np.clip(places[rng.integers(len(places))] - 32, 0, image.shape[0] - 64)
            patch = image[top : top + 64, left : left + 64]
            power += np.abs(np.fft.fft2((patch - patch.mean()) * taper)) ** 2 / (20 * len(images))
    cuts = [0.02, 0.05, 0.1, 0.18, 0.3, 0.5]
    return np.log10([power[(f >= a) & (f < b)].mean() for a, b in pairwise(cuts)]), histogram


@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data: phantoms are not compared with real slices")
def test_statistics_are_close_to_real_slices():
    real = [
        s.hu.clip(-1024, 3071)
        for s in (f.read()[0] for f in find_series(DATA).series)
        if not any(k in str(s.meta.get("kernel")) for k in ("LUNG", "BONE", "B60"))
    ]
    fake = []
    for i in range(12):
        truth = made(i, KINDS[i % 2], size=512)
        rng, kernel = np.random.default_rng(i), "sharp" if i % 4 == 0 else "smooth"
        fake.append(
            simulate_low_dose(truth.hu, truth.spacing, 1.0, rng, kernel=kernel, input_dose=float("inf"))
        )
    (a, p), (b, q) = bands(real), bands(fake)
    assert np.abs(a - b).max() < 0.3  # within a factor of 2, over five decades
    assert np.minimum(p, q).sum() > 0.75
