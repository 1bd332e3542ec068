"""Which layers a module has, and that a reading is what the layer returned."""

import contextlib

import numpy as np
import pytest
import torch
from ctinv.adapters import LayerError, ModelError, UnsupportedModelError
from torch import nn

from ..laws import captured, image
from ..toys import Branching, Plain, RedCnn, TrainMode, make
from .toys import units, wrap


def test_T01_in_place_activation_does_not_reach_the_reading():
    module = make("InPlace")
    denoiser = wrap(module)
    x = image()
    with torch.no_grad():
        want = module.conv1(units(denoiser, x))
    # Read alone, the run ends before the activation does its work.
    for z in (denoiser.features(x, "conv1"), denoiser.features(x, ["conv1", "@output"])["conv1"]):
        assert z.min() < 0
        np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-6)


def test_T02_in_place_sum_does_not_reach_the_reading():
    module = make("RedCnn")
    denoiser = wrap(module)
    x = image()
    want = captured(module, units(denoiser, x))
    both = denoiser.features(x, ["tconv1", "@output"])
    np.testing.assert_allclose(both["tconv1"], want["tconv1"], rtol=1e-5, atol=1e-6)


def test_T03_repeated_calls_are_told_apart():
    denoiser = wrap(make("RedCnn"))
    calls = [layer.name for layer in denoiser.layers if layer.name.startswith("relu")]
    assert calls == ["relu@0", "relu@1", "relu@2", "relu@3"]
    with pytest.raises(LayerError, match=r"runs 4 times.*relu@0 \(3x60x60\).*relu@3 \(1x64x64\)") as caught:
        denoiser.features(image(), "relu")
    assert caught.value.matches == tuple(calls)
    x = image()
    assert np.array_equal(denoiser.features(x, "relu@-1"), denoiser.features(x, "relu@3"))
    with pytest.raises(LayerError, match="relu@4"):
        denoiser.features(x, "relu@4")


def test_T04_second_name_of_a_module_is_an_alias():
    denoiser = wrap(make("Twins"))
    by_name = {layer.name: layer for layer in denoiser.layers}
    assert by_name["body.0"].aliases == ("first",)
    assert by_name["body.1@1"].aliases == ("body.3@1",)
    x = image()
    assert np.array_equal(denoiser.features(x, "first"), denoiser.features(x, "body.0"))
    assert np.array_equal(denoiser.features(x, "body.3@-1"), denoiser.features(x, "body.1@1"))


def test_T05_operations_outside_modules_have_no_name_and_the_error_says_so():
    denoiser = wrap(make("Functional"))
    with pytest.raises(LayerError, match="operations outside modules have no name") as caught:
        denoiser.features(image(), "sub")
    assert "@output" in caught.value.matches
    assert [layer.name for layer in denoiser.layers if layer.tappable] == ["head", "tail"]


def test_T06_control_flow_follows_the_image():
    module = make("Branching")
    denoiser = wrap(module)
    assert denoiser.resolve("bright").tappable  # the probe image is bright
    bright, dark = image() + 2000, image() - 2000
    with torch.no_grad():
        want = module.bright(units(denoiser, bright))
    np.testing.assert_allclose(denoiser.features(bright, "bright"), want, rtol=1e-5, atol=1e-5)
    with pytest.raises(LayerError, match="did not run for these images"):
        denoiser.features(dark, "bright")
    with torch.no_grad():
        want = denoiser.intensity.to_hu(module.dark(units(denoiser, dark)))
    np.testing.assert_allclose(denoiser.denoise(dark), want, rtol=1e-5, atol=1e-3)


def test_T09_module_compiled_and_called_before_is_still_read(compiling):
    module = make("Plain").eval()  # as it will be read, or it would be compiled anew, with the hooks in
    x = image()
    compiled = torch.compile(module, backend="eager")
    with torch.no_grad():
        for shape in ((1, 1, 64, 64), (2, 1, 64, 64), x.shape):  # every size that will be read
            compiled(torch.zeros(shape))
    denoiser = wrap(compiled)
    with torch.no_grad():
        want = module.conv1(units(denoiser, x))
    np.testing.assert_allclose(denoiser.features(x, "conv1"), want, rtol=1e-5, atol=1e-6)


def test_T09_hook_that_does_not_fire_is_an_error():
    module = make("Plain")
    denoiser = wrap(module)
    assert denoiser.layers
    module.forward = lambda x: x  # from now on no layer runs
    with pytest.raises(LayerError, match="'conv1' did not run"):
        denoiser.features(image(), "conv1")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["scripted", "traced", "exported"])
def test_T10_models_without_python_layers_are_refused(how):
    module = make("Plain").eval()
    x = torch.zeros(1, 1, 16, 16)
    if how == "scripted":
        frozen = torch.jit.script(module)
    elif how == "traced":
        frozen = torch.jit.trace(module, x)
    else:
        frozen = torch.export.export(module, (x,)).module()
    with pytest.raises(
        UnsupportedModelError, match="hides its layers; load the eager PyTorch code, or export"
    ):
        wrap(frozen)


def test_T10_exported_program_is_refused():
    program = torch.export.export(make("Plain").eval(), (torch.zeros(1, 1, 16, 16),))
    with pytest.raises(UnsupportedModelError, match="hides its layers"):
        wrap(program)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_T10_scripted_part_is_listed_as_out_of_reach():
    module = make("Plain").eval()
    module.relu2 = torch.jit.script(module.relu2)
    denoiser = wrap(module)
    with pytest.raises(LayerError, match=r"'relu2' .* cannot be read: it is compiled by TorchScript"):
        denoiser.features(image(), "relu2")
    assert denoiser.features(image(), "conv3").shape == (3, 1, 16, 24)


def test_T11_root_runs_through_call_and_ends_have_reserved_names():
    module = make("Plain")
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    denoiser = wrap(module)
    x = image()
    ends = denoiser.features(x, ["@input", "@output"])
    assert seen
    assert np.array_equal(ends["@input"], x)
    assert np.array_equal(ends["@output"], denoiser.denoise(x))
    assert ends["@input"] is not x


class _Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.error = None

    def forward(self, x):
        h = self.conv(x)
        if self.error is not None:
            raise self.error
        return h


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_T12_no_hook_survives_and_the_users_stay(error):
    module = _Fails()
    calls = []
    own = module.conv.register_forward_hook(lambda *_: calls.append(1))
    denoiser = wrap(module)
    x = image()
    denoiser.features(x, "conv")
    module.error = error
    expected = {None: None, RuntimeError: ModelError}.get(type(error) if error else None, type(error))
    with pytest.raises(expected) if expected else contextlib.nullcontext():
        denoiser.features(x, ["conv", "@output"])
    assert list(module.conv._forward_hooks) == [own.id]
    assert not module._forward_hooks
    assert module.training
    assert calls


def test_T12_reading_inside_a_users_hook_is_fine():
    module = make("Plain")
    denoiser = wrap(module)
    x = image(1)
    want = denoiser.features(x, "conv1")
    inner = []

    def nested(*_):
        if not inner:
            inner.append(None)
            inner[0] = denoiser.features(x, "conv1")

    module.relu2.register_forward_hook(nested)
    assert np.array_equal(denoiser.features(x, "conv3"), wrap(make("Plain")).features(x, "conv3"))
    assert np.array_equal(inner[0], want)


def test_T17_batches_are_bounded_and_the_rest_is_not_run():
    module = make("Plain")
    denoiser = wrap(module)
    assert denoiser.layers
    sizes, later = [], []
    module.conv1.register_forward_pre_hook(lambda _m, args: sizes.append(args[0].shape[0]))
    module.conv3.register_forward_pre_hook(lambda *_: later.append(1))
    x = image(7)
    denoiser.features(x[:1], "conv1")
    sizes.clear(), later.clear()
    parts = denoiser.features(x, "conv1", batch_size=3)
    assert sizes == [3, 3, 1]
    assert not later
    np.testing.assert_allclose(parts, denoiser.features(x, "conv1"), atol=1e-6)


def test_T19_names_of_other_peoples_networks():
    net = nn.Sequential(*(layer for i in range(7) for layer in (nn.Conv2d(1, 1, 1), nn.ReLU())))

    class Wgan(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)

    denoiser = wrap(Wgan())
    assert denoiser.resolve("12").name == "net.12"  # the only name that ends so
    assert denoiser.resolve("conv7").name == "net.12"
    assert denoiser.resolve("relu3").name == "net.5"
    assert any("'conv7' is taken as 'net.12'" in notice for notice in denoiser.notices)
    assert wrap(make("Valid")).resolve("conv2").name == "layers.2"
    assert wrap(make("RedCnn")).resolve("tconv2").name == "tconv2"
    assert wrap(make("Plain")).resolve("conv3").name == "conv3"  # a name beats counting
    with pytest.raises(LayerError, match=r"close: net\.12.*ctinv layers --model") as caught:
        denoiser.resolve("nets.12")
    assert caught.value.matches[0] == "net.12"


def test_T20_parametrised_and_patched_layers_are_read():
    module = make("WeightNorm")
    denoiser = wrap(module)
    x = image()
    with torch.no_grad():
        h = module.conv(units(denoiser, x))
        want = module.last(h.relu())
    both = denoiser.features(x, ["conv", "last"])
    np.testing.assert_allclose(both["conv"], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both["last"], want, rtol=1e-5, atol=1e-6)
    assert denoiser.resolve("conv").op == "Conv2d"


def test_layers_are_listed_in_execution_order_with_idle_ones_last():
    denoiser = wrap(make("Functional"))
    assert [(layer.name, layer.op, layer.shape) for layer in denoiser.layers] == [
        ("head", "Conv2d", (2, 64, 64)),
        ("tail", "Conv2d", (1, 64, 64)),
        ("dead", "Conv2d", ()),
    ]
    with pytest.raises(LayerError, match=r"'dead' .*never ran.*nearest that can: head, tail"):
        denoiser.features(image(), "dead")


@pytest.mark.parametrize("cls", [Plain, RedCnn, TrainMode, Branching])
def test_several_layers_at_once_equal_one_by_one(cls):
    torch.manual_seed(0)
    denoiser = wrap(cls())
    names = [layer.name for layer in denoiser.layers if layer.tappable]
    x = image() + 200
    together = denoiser.features(x, [*names, "@output"])
    assert list(together) == [*names, "@output"]
    for name in names:
        assert np.array_equal(together[name], denoiser.features(x, name))
