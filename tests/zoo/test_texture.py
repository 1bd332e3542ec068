"""A network of the zoo says where the noise is not of the kind it was trained on."""

import numpy as np
import pytest
from ctinv.cli.models import ModelSpec, open_model, settle_units
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.noise_level import noise_texture, soft_noise
from ctinv.zoo.registry import names, unlike_training
from scipy import ndimage


def noisy(width, seed=0, size=96):
    """Water with Gaussian noise of 10 HU, filtered to this width in pixels."""
    noise = np.random.default_rng(seed).normal(0, 1, (size, size))
    if width:
        noise = ndimage.gaussian_filter(noise, width)
    return (10 * noise / noise.std()).astype(np.float32)


def test_texture_falls_with_smoothness_and_forgets_strength():
    found = [noise_texture(noisy(width)) for width in (0.0, 0.5, 1.0, 2.0)]
    assert found == sorted(found, reverse=True)
    assert noise_texture(7 * noisy(0.5)) == pytest.approx(noise_texture(noisy(0.5)), rel=0.2)
    assert noise_texture(np.full((96, 96), -1000.0, np.float32)) is None


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_noise_is_measured(strength):
    assert soft_noise(strength * noisy(0.0)) == pytest.approx(10 * strength, rel=0.1)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("width", "told"), [(0.0, True), (0.75, False), (3.0, True)])
def test_noise_of_another_kind_is_told(name, width, told):
    note = unlike_training(name, noisy(width))
    assert bool(note) is told
    assert not told or ("finer" if width == 0.0 else "coarser") in note


def test_the_command_line_tells_it():
    image = noisy(0.0)
    one = CTSlice(image, np.ones(image.shape, bool))
    denoiser = open_model(ModelSpec("chen", device="cpu"))
    settle_units(denoiser, ModelSpec("chen"), [one, one], None)
    assert [note for note in denoiser.notices if "was trained on" in note] == [unlike_training("chen", image)]
