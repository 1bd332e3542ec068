"""What calibration measures of a trial, in closed form, on functions that stand for denoisers."""

import math

import numpy as np
import pytest
from ctinv.adapters import ImageError
from ctinv.adapters.calibration import _starts, calibrate
from ctinv.adapters.errors import ModelError, UnsupportedModelError

UNITS = "unit:-200:200"  # 400 HU per unit


def slices(count=1, height=128, width=128):
    """Soft tissue with an edge to air on the left, no noise."""
    images = np.full((count, 1, height, width), 40.0, np.float32)
    images[..., : width // 4] = -1000.0
    return images


class Known:
    """Moves the image by ``bias`` HU and leaves ``left`` of the noise."""

    def __init__(self, bias, left, crop=0):
        self.bias, self.left, self.crop = bias, left, crop
        self.seen = []

    def __call__(self, both, intensity, outputs):
        self.seen.append(both)
        plus, minus = np.split(both.astype(np.float64), 2)
        clean, noise = (plus + minus) / 2, (plus - minus) / 2
        found = np.concatenate([clean + self.bias + self.left * noise, clean + self.bias - self.left * noise])
        inner = slice(self.crop, -self.crop or None)
        return [found[..., inner, inner].astype(np.float32) for _ in outputs]


def trial(run, images=None, candidates=(UNITS,), **options):
    found = calibrate(
        run, slices() if images is None else images, candidates=candidates, outputs=["image"], **options
    )
    return found.table[0]


def expected(found, bias, removed, scale=400.0):
    return (
        math.log(found.tissue)
        + 0.3 * math.log(max(bias, 0.7))
        + math.log(min(max(bias, 4.0), 15.0))
        - 0.25 * math.log(removed)
        - 0.1 * math.log(scale)
    )


@pytest.mark.parametrize("crop", [0, 7])
@pytest.mark.parametrize("left", [0.2, 0.9])
@pytest.mark.parametrize("bias", [-1.0, 0.1, 6.0, 14.0])
def test_figures_of_a_known_denoiser(bias, left, crop):
    found = trial(Known(bias, left, crop))
    assert found.tissue == pytest.approx(math.hypot(bias, 30 * left), rel=0.03)
    assert found.tissue_bias == pytest.approx(abs(bias), rel=1e-3)
    assert found.bias == pytest.approx(abs(bias), rel=1e-3)
    assert found.removed == pytest.approx(1 - left**2, abs=1e-4)
    assert found.score == pytest.approx(expected(found, abs(bias), 1 - left**2), abs=1e-3)
    assert found.intensity.spec == UNITS


def test_a_bias_beyond_fifteen_outside_tissue_counts_no_more():
    def run(both, intensity, outputs):
        (found,) = Known(2.0, 0.5)(both, intensity, outputs)
        return [np.where(found < -500, found + 300, found)]

    found = trial(run, slices(width=160))
    assert found.bias == pytest.approx(302, rel=1e-3)
    assert found.tissue_bias == pytest.approx(2, abs=0.5)
    wanted = expected(found, found.tissue_bias, 0.75) + math.log(15 / 4)
    assert found.score == pytest.approx(wanted, abs=1e-2)


@pytest.mark.parametrize(
    ("bias", "left"), [(15.1, 0.2), (0.0, 0.98), (0.0, 1.5), (np.nan, 0.5), (np.inf, 0.5)]
)
def test_what_biases_tissue_or_leaves_the_noise_is_out(bias, left):
    other = Known(1.0, 0.5)

    def run(both, intensity, outputs):
        return (Known(bias, left) if intensity.spec == "hu" else other)(both, intensity, outputs)

    best, out = calibrate(run, slices(), candidates=["hu", UNITS], outputs=["image"]).table
    assert (best.intensity.spec, out.intensity.spec) == (UNITS, "hu")
    assert out.score == pytest.approx(20 + math.log(max(out.tissue, 1)))


def test_the_noise_has_the_strength_asked_for_and_follows_the_seed():
    seen = {}
    for noise, seed in ((30.0, 0), (20.0, 0), (30.0, 1)):
        run = Known(1.0, 0.3)
        trial(run, noise=noise, seed=seed)
        plus, minus = np.split(run.seen[0], 2)
        seen[noise, seed] = (plus - minus) / 2
        assert seen[noise, seed].std() == pytest.approx(noise, rel=1e-4)
        np.testing.assert_allclose((plus + minus)[..., 20:-20, 50:-20] / 2, 40.0, atol=1e-3)
    np.testing.assert_allclose(seen[20.0, 0] * 1.5, seen[30.0, 0], atol=1e-3)
    assert abs(np.corrcoef(seen[30.0, 0].ravel(), seen[30.0, 1].ravel())[0, 1]) < 0.05
    neighbours = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in _neighbours(seen[30.0, 0])]
    # A Gaussian of 0.7 pixels along both axes: exp(-1 / (4 0.7^2)) between neighbours.
    np.testing.assert_allclose(neighbours, math.exp(-1 / (4 * 0.49)), atol=0.05)


def _neighbours(image):
    yield image[..., 1:, :], image[..., :-1, :]
    yield image[..., 1:], image[..., :-1]


@pytest.mark.parametrize(
    ("images", "size", "shape"),
    [
        (slices(1, 128, 128), (None, None), (1, 128, 128)),
        (slices(1, 100, 90), (None, None), (1, 100, 90)),
        (slices(9, 128, 128), (None, None), (4, 128, 128)),
        (slices(3, 300, 300), (None, None), (4, 128, 128)),
        (slices(2, 300, 300), (64, 64), (16, 64, 64)),
        (slices(2, 300, 300), (64, None), (8, 64, 128)),
        (slices(2, 300, 300), (None, 64), (8, 128, 64)),
        (slices(2, 600, 600), (512, 512), (1, 512, 512)),
    ],
)
def test_patches_are_small_and_few(images, size, shape):
    run = Known(1.0, 0.3)
    trial(run, images, size=size)
    assert run.seen[0].shape == (2 * shape[0], 1, *shape[1:])


def test_every_image_gives_its_best_patch_before_any_gives_a_second():
    images = slices(4, 256, 256)
    levels = (10.0, 20.0, 30.0, 50.0)
    for one, level in zip(images, levels, strict=True):
        one[one > 0] = level
    run = Known(1.0, 0.3)
    trial(run, images)
    clean = sum(np.split(run.seen[0], 2)) / 2
    assert sorted(float(np.round(patch[0, 60, 120])) for patch in clean) == list(levels)
    # About 60 % of tissue beside something else is best: the edge is in the patch.
    assert all((patch < -500).any() for patch in clean)


def test_values_beyond_the_scale_of_ct_are_clipped():
    images = slices()
    images[..., :10, :10], images[..., :10, 20:30] = 1e6, -1e6
    run = Known(1.0, 0.3)
    trial(run, images)
    clean = sum(np.split(run.seen[0], 2)) / 2
    assert -1025 < clean.min() < -1000
    assert 3000 < clean.max() < 3072


@pytest.mark.parametrize(
    ("length", "side", "starts"),
    [
        (300, 128, [0, 64, 128, 172]),
        (256, 128, [0, 64, 128]),
        (128, 128, [0]),
        (4, 1, [0, 1, 2, 3]),
    ],
)
def test_patches_overlap_by_half_and_reach_the_end(length, side, starts):
    assert _starts(length, side) == starts


@pytest.mark.parametrize(("pixels", "enough"), [(399, False), (400, True)])
def test_how_much_tissue_is_needed(pixels, enough):
    images = np.full((1, 1, 64, 64), -1000.0, np.float32)
    images.reshape(-1)[:pixels] = 40.0
    if enough:
        trial(Known(1.0, 0.3), images)
    else:
        with pytest.raises(ImageError, match=f"have {pixels} such pixels"):
            trial(Known(1.0, 0.3), images)


def test_conventions_that_cannot_run_are_left_out_and_progress_is_told():
    told = []

    def run(both, intensity, outputs):
        if intensity.spec == "hu":
            raise ModelError("too large")
        return Known(1.0, 0.3)(both, intensity, outputs)

    found = calibrate(
        run, slices(), candidates=["hu", UNITS], outputs=["image"], progress=lambda *step: told.append(step)
    )
    assert [one.intensity.spec for one in found.table] == [UNITS]
    assert told == [("calibrate", 0, 2), ("calibrate", 1, 2), ("calibrate", 2, 2)]

    def refuse(both, intensity, outputs):
        raise UnsupportedModelError("never")

    with pytest.raises(UnsupportedModelError, match="never"):
        trial(refuse)


@pytest.mark.parametrize(("left", "found_at"), [(0.5, 100.0), (0.62, None)])
def test_strong_noise_is_tried_where_weak_noise_is_left_alone(left, found_at):
    """With strong noise twice three times the bias counts, and 0.6 of the noise may be left."""

    def run(both, intensity, outputs):
        weak = np.abs(np.subtract(*np.split(both, 2))).max() < 2 * 200
        return Known(30.0, 1.0 if weak else left)(both, intensity, outputs)

    if found_at is None:
        with pytest.raises(Exception, match="no known convention"):
            trial(run)
        return
    found = calibrate(run, slices(), candidates=[UNITS], outputs=["image"])
    assert found.noise == found_at
    (only,) = found.table
    wanted = math.log(only.tissue) + 0.3 * math.log(30) + math.log(30) - 0.25 * math.log(1 - left**2)
    assert only.score == pytest.approx(wanted - 0.1 * math.log(400), abs=1e-2)
