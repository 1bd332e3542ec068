"""What all denoisers share: units, sizes, channels, kinds of arrays; hard cases D1 to D7."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters import (
    CANDIDATES,
    ImageError,
    IntensityError,
    ModelError,
    UnsupportedModelError,
    parse_intensity,
)
from torch import nn

from .laws import image
from .toys import Blocky4, Colour, Lopsided, NoiseLevel, make

UNITS = "unit:-160:240"


def wrap(module, **options):
    return adapters.wrap(module, **{"intensity": UNITS, **options})


class Scaled(nn.Module):
    """A network that works in one convention, made of one that works in HU."""

    def __init__(self, spec, hu, residual=False):
        super().__init__()
        self.units, self.hu, self.residual = parse_intensity(spec), hu, residual

    def forward(self, u):
        image = self.units.to_model(self.hu(self.units.to_hu(u)))
        return u - image if self.residual else image


class Smooth(nn.Module):
    """A smoothing filter in HU."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def test_D01_network_without_padding_returns_the_centre():
    module = make("Valid")
    with torch.no_grad():
        for layer in (module.layers[0], module.layers[2]):
            layer.weight.zero_()
            layer.weight[:, :, 1, 1] = 1.0
            layer.bias.zero_()
    denoiser = wrap(module, intensity="hu")
    x = np.zeros((1, 1, 20, 24), dtype=np.float32)
    x[0, 0, 9, 11] = 100.0
    y = denoiser.denoise(x)
    assert denoiser.crop == 2
    assert y.shape == (1, 1, 16, 20)
    assert np.unravel_index(y.argmax(), y.shape)[2:] == (9 - 2, 11 - 2)
    assert any("lacks 2 pixels on each side" in notice for notice in denoiser.notices)


def test_D01_residual_is_subtracted_from_the_centre():
    module = make("Valid")
    x = image(2, 20, 24)
    denoiser = wrap(module, output="residual")
    with torch.no_grad():
        noise = 400.0 * module(denoiser.intensity.to_model(torch.from_numpy(x)))
    np.testing.assert_allclose(denoiser.denoise(x), x[:, :, 2:-2, 2:-2] - noise.numpy(), rtol=1e-5, atol=1e-3)


def test_D01_uneven_crop_is_refused():
    with pytest.raises(UnsupportedModelError, match="64x64 pixels into 63x63"):
        wrap(Lopsided()).denoise(image())


@pytest.mark.parametrize(("height", "width"), [(250, 250), (16, 21), (33, 40)])
def test_D02_sizes_that_do_not_fit_are_mirrored_and_cropped_back(height, width):
    module = make("Multiple8")
    denoiser = wrap(module)
    x = image(2, height, width)
    y = denoiser.denoise(x)
    assert y.shape == x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
    with torch.no_grad():
        want = denoiser.intensity.to_hu(module(denoiser.intensity.to_model(torch.from_numpy(padded))))
    np.testing.assert_allclose(y, want[:, :, :height, :width], rtol=1e-5, atol=1e-3)
    assert any("multiples of" in notice for notice in denoiser.notices)
    assert denoiser.features(x, "down.0").shape[2] == (height + -height % 8) // 2


def test_D02_silently_smaller_outputs_are_not_taken_for_a_crop():
    denoiser = wrap(Blocky4())
    assert denoiser.denoise(image(1, 22, 26)).shape == (1, 1, 22, 26)
    assert denoiser.crop == 0


def test_D02_fitting_sizes_are_left_alone():
    denoiser = wrap(make("Multiple8"))
    denoiser.denoise(image(1, 24, 32))
    assert not any("multiples" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("spec", CANDIDATES)
@pytest.mark.parametrize("residual", [False, True])
def test_D03_output_is_found_by_a_probe(spec, residual):
    module = Scaled(spec, Smooth(), residual)
    denoiser = wrap(module, intensity=spec, output="auto")
    x = image(2, 32, 32)
    np.testing.assert_allclose(denoiser.denoise(x), Smooth()(torch.from_numpy(x)), rtol=1e-3, atol=1e-2)
    assert denoiser.output == ("residual" if residual else "image")
    assert any("taken to return the" in notice for notice in denoiser.notices)


def test_D03_probe_only_warns_where_the_user_has_said():
    x = image(2, 32, 32)
    module = Scaled("hu", Smooth(), residual=True)
    denoiser = wrap(module, intensity="hu", output="image")
    with torch.no_grad():
        np.testing.assert_allclose(denoiser.denoise(x), module(torch.from_numpy(x)), atol=1e-3)
    assert denoiser.output == "image"
    assert any("was given, but constant images come out as zero" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("spec", [*CANDIDATES, "offset:1024:unit:0:4096", "standard:30:80"])
@pytest.mark.parametrize("residual", [False, True])
def test_D04_every_convention_gives_the_same_denoised_image(spec, residual):
    x = image(2, 32, 32)
    want = Smooth()(torch.from_numpy(x)).numpy()
    denoiser = wrap(
        Scaled(spec, Smooth(), residual), intensity=spec, output="residual" if residual else "image"
    )
    np.testing.assert_allclose(denoiser.denoise(x), want, atol=2e-2)


def test_D04_unknown_units_are_an_error_that_tells_the_mend():
    denoiser = adapters.wrap(make("Plain"))
    for call in (denoiser.denoise, lambda x: denoiser.features(x, "conv1")):
        with pytest.raises(IntensityError, match=r"give intensity= .* or call calibrate"):
            call(image())


def test_D04_units_come_from_the_module_where_it_says_them():
    module = make("Plain")
    module.ctinv_intensity, module.ctinv_output = "standard:-500:500", "residual"
    denoiser = adapters.wrap(module)
    assert (str(denoiser.intensity), denoiser.output) == ("standard:-500:500", "residual")
    assert str(adapters.wrap(module, intensity="hu").intensity) == "hu"


def test_D06_colour_networks_only_on_request():
    module = Colour()
    x = image()
    with pytest.raises(ModelError, match="channels=3"):
        wrap(module).denoise(x)
    denoiser = wrap(module, channels=3)
    with torch.no_grad():
        u = denoiser.intensity.to_model(torch.from_numpy(x)).repeat(1, 3, 1, 1)
        want = denoiser.intensity.to_hu(module(u).mean(1, keepdim=True))
    np.testing.assert_allclose(denoiser.denoise(x), want, rtol=1e-5, atol=1e-3)


def test_D07_noise_level_is_bound_once():
    module = NoiseLevel()
    x = image()
    with pytest.raises(
        ModelError, match=r"needs sigma beside the image; bind it with feed=\{'sigma': value\}"
    ):
        wrap(module)
    with pytest.raises(ModelError, match=r"takes no argument 'noise'.*it takes sigma"):
        wrap(module, feed={"noise": 1.0})
    denoiser = wrap(module, feed={"sigma": 0.05})
    with torch.no_grad():
        u = denoiser.intensity.to_model(torch.from_numpy(x))
        want = module(u, torch.full((3, 1, 1, 1), 0.05))
    np.testing.assert_allclose(denoiser.features(x, "conv"), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(denoiser.features(x, "conv", batch_size=2), want, rtol=1e-5, atol=1e-6)
    assert denoiser.fingerprint != wrap(module, feed={"sigma": 0.1}).fingerprint


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((8, 8), np.float32), r"not \(8, 8\); for one slice give x\[None, None\]"),
        (np.zeros((2, 8, 8), np.float32), r"for a stack of slices give x\[:, None\]"),
        (np.zeros((2, 3, 8, 8), np.float32), "one grey channel"),
        (np.zeros((0, 1, 8, 8), np.float32), "must not be empty"),
        (np.zeros((1, 1, 8, 8), np.int16), "must be floating point, in HU, not int16"),
        (torch.zeros((1, 1, 8, 8), dtype=torch.int16), "must be floating point"),
        (np.full((1, 1, 8, 8), np.nan, np.float32), "must be finite"),
        (torch.full((1, 1, 8, 8), torch.inf), "must be finite"),
        ([[0.0]], "not list"),
    ],
)
def test_images_are_checked_at_the_door(x, message):
    denoiser = wrap(make("Plain"))
    for call in (denoiser.denoise, lambda x: denoiser.features(x, "conv1"), denoiser.calibrate):
        with pytest.raises(ImageError, match=message):
            call(x)


def test_images_are_never_changed_nor_shared():
    denoiser = wrap(make("InPlace"), intensity="hu")
    x = image()
    kept = x.copy()
    x.flags.writeable = False
    parts = denoiser.features(x, ["@input", "@output", "conv1"])
    parts["@input"] += 1
    assert np.array_equal(x, kept)
    tensor = torch.from_numpy(kept.copy())
    denoiser.features(tensor, "@input").add_(1)
    assert np.array_equal(tensor.numpy(), kept)


def test_batch_size_is_checked():
    with pytest.raises(ImageError, match="batch_size must be at least 1"):
        wrap(make("Plain")).denoise(image(), batch_size=0)


def test_double_and_half_images_give_float32():
    denoiser = wrap(make("Plain"))
    x = image()
    for kind in (np.float16, np.float64, np.dtype(">f4")):
        y = denoiser.denoise(x.astype(kind))
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, denoiser.denoise(x), atol=0.5)


def test_gradients_are_refused_where_they_cannot_be():
    denoiser = wrap(make("Plain"))
    with pytest.raises(ImageError, match="needs images as a torch tensor"):
        denoiser.features(image(), "conv1", grad=True)
    denoiser.differentiable = False
    with pytest.raises(UnsupportedModelError, match="cannot be differentiated"):
        denoiser.features(torch.from_numpy(image()), "conv1", grad=True)
