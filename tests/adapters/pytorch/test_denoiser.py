"""PyTorch denoisers as a user meets them: wrappers, gradients, devices, fingerprints."""

import copy

import numpy as np
import pytest
import torch
from ctinv.adapters import ModelError
from torch import nn

from ..laws import image, state_of
from ..toys import TOYS, Colour, NoParameters, make
from .toys import units, wrap


@pytest.mark.parametrize("how", ["data parallel", "compiled", "both", "part compiled", "in-place compile"])
def test_T08_wrappers_change_neither_names_nor_readings(how, compiling):
    module = make("RedCnn")
    bare = wrap(copy.deepcopy(module))
    x = image()
    if how == "data parallel":
        given = nn.DataParallel(module)
    elif how == "compiled":
        given = torch.compile(module, backend="eager")
    elif how == "both":
        given = nn.DataParallel(torch.compile(module, backend="eager"))
    elif how == "part compiled":
        module.conv2 = torch.compile(module.conv2, backend="eager")
        given = module
    else:
        module.compile(backend="eager")
        given = module
    before = state_of(given)
    denoiser = wrap(given)
    assert [layer.name for layer in denoiser.layers] == [layer.name for layer in bare.layers]
    for name in ("conv2", "module.conv2", "_orig_mod.conv2", "module._orig_mod.conv2"):
        assert np.array_equal(denoiser.features(x, name), bare.features(x, "conv2"))
    assert state_of(given) == before


def test_T14_readings_can_be_used_for_fitting():
    module = make("Plain")
    denoiser = wrap(module)
    with torch.inference_mode():
        x = torch.from_numpy(image())
        z = denoiser.features(x, "conv1", batch_size=2)
    assert not z.is_inference()
    assert not z.requires_grad
    head = nn.Conv2d(4, 1, 1)
    head(z).square().mean().backward()
    assert head.weight.grad is not None


def test_T14_gradients_reach_the_image_on_request():
    module = make("InPlace")
    denoiser = wrap(module)
    x = torch.from_numpy(image()).requires_grad_()
    both = denoiser.features(x, ["conv1", "@output"], grad=True, batch_size=2)
    (got,) = torch.autograd.grad(both["conv1"].square().sum() + both["@output"].sum(), x)
    u = units(denoiser, x)
    h = module.conv1(u)
    y = denoiser.intensity.to_hu(module.conv3(h.relu()))
    (want,) = torch.autograd.grad(h.square().sum() + y.sum(), x)
    torch.testing.assert_close(got, want)
    assert all(p.grad is None for p in module.parameters())


def test_T16_device_and_kind_follow_the_image():
    for module in (NoParameters(), make("Plain")):
        denoiser = wrap(module)
        assert denoiser.device == "cpu"
        x = torch.from_numpy(image()).double()
        z = denoiser.denoise(x)
        assert isinstance(z, torch.Tensor)
        assert (z.dtype, z.device) == (torch.float32, x.device)
        assert isinstance(denoiser.denoise(x.numpy()), np.ndarray)


def test_T16_weights_that_are_not_there_are_refused():
    with torch.device("meta"):
        module = TOYS["Plain"]()
    with pytest.raises(ModelError, match="no weights yet"):
        wrap(module).denoise(image())
    lazy = nn.Sequential(nn.LazyConv2d(1, 3, padding=1))
    with pytest.raises(ModelError, match=r"no weights yet \(lazy modules\)"):
        wrap(lazy).denoise(image())


@pytest.mark.gpu
def test_T16_cpu_image_through_gpu_model():
    x = image()
    module = make("Plain")
    denoiser = wrap(module, device="cuda")
    assert next(module.parameters()).device.type == "cpu"
    assert denoiser.device.startswith("cuda")
    np.testing.assert_allclose(denoiser.features(x, "conv1"), wrap(module).features(x, "conv1"), atol=1e-4)
    assert denoiser.features(torch.from_numpy(x).cuda(), "conv1").device.type == "cuda"


def test_fingerprint_follows_weights_and_structure_only():
    a, b = make("Plain"), make("Plain")
    assert wrap(a).fingerprint == wrap(b, name="other", intensity="hu").fingerprint
    assert wrap(nn.DataParallel(a)).fingerprint == wrap(b).fingerprint
    with torch.no_grad():
        b.conv3.bias += 1e-3
    assert wrap(a).fingerprint != wrap(b).fingerprint
    assert wrap(a).fingerprint != wrap(make("InPlace")).fingerprint
    counted = make("PlainTensors")
    first = wrap(counted).fingerprint
    counted.mean = counted.mean + 1
    assert wrap(counted).fingerprint != first


def test_failing_forward_tells_shape_cause_and_channels():
    with pytest.raises(ModelError, match=r"shape \(1, 1, 64, 64\): RuntimeError.*give channels=3"):
        wrap(Colour()).denoise(image())
