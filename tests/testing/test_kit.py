"""The kit finds what is wrong with an adapter, and nothing wrong with those of the project."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters import INPUT, OUTPUT
from ctinv.adapters.pytorch.denoiser import TorchDenoiser
from ctinv.testing import CHECKS, CheckError, capture, check_denoiser, parametrize_checks
from torch import nn

UNITS = adapters.parse_intensity("unit:-1024:3072")


def network():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-0.5, 0.5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(inplace=True), nn.Conv2d(4, 1, 3, padding=1)
    ).eval()


def failures(denoiser, **options):
    results = check_denoiser(denoiser, on_fail=None, **options)
    return {result.check for result in results if result.status == "failed"}


class Good(TorchDenoiser):
    """The adapter that the broken ones spoil."""

    def __init__(self):
        super().__init__(network(), intensity=UNITS)


class Overwritten(Good):
    """Keeps a tensor that an in-place layer then overwrites."""

    def _run(self, x, names, grad):
        found = dict(super()._run(x, names, grad))
        return {name: z.clamp(min=0) if name == "1" else z for name, z in found.items()}


class WrongLayer(Good):
    """Gives the layer behind the one asked for."""

    def _run(self, x, names, grad):
        after = {"0": "1"}
        found = super()._run(x, [after.get(name, name) for name in names], grad)
        return {name: found[after.get(name, name)] for name in names}


class EditsTheImage(Good):
    """Takes the mean out of the caller's image."""

    def features(self, x, layer, **options):
        z = super().features(x, layer, **options)
        if isinstance(x, np.ndarray):
            x += 1
        return z


class TrainsOn(Good):
    """Leaves the module in training mode."""

    def _run(self, x, names, grad):
        found = super()._run(x, names, grad)
        self.module.train()
        return found


class MixesTheBatch(Good):
    """Takes the batch's mean out of what it reads."""

    def _run(self, x, names, grad):
        return {name: z - z.mean(0, keepdim=True) for name, z in super()._run(x, names, grad).items()}


class Random(Good):
    """Adds noise."""

    def _run(self, x, names, grad):
        return {name: z + torch.randn_like(z) for name, z in super()._run(x, names, grad).items()}


class ModelUnits(Good):
    """Returns f(x) in the model's units."""

    def _image(self, x, raw, intensity, output=None):
        return raw


class Double(Good):
    """Returns other types than it should."""

    def features(self, x, layer, **options):
        z = super().features(x, layer, **options)
        return z.astype(np.float64) if isinstance(z, np.ndarray) else z


class Shrinks(Good):
    """Returns a smaller image without a word."""

    def denoise(self, x, **options):
        return super().denoise(x, **options)[..., 2:-2, 2:-2]


class KeyErrors(Good):
    """Knows no names but its own, and says so in its own way."""

    def resolve(self, layer):
        return (
            {one.name: one for one in self.layers}[layer]
            if layer not in (INPUT, OUTPUT)
            else super().resolve(layer)
        )


class OneFingerprint(Good):
    """All models are one."""

    fingerprint = "0" * 64


class NewFingerprint(Good):
    """No model is itself."""

    _count = itertools.count()

    @property
    def fingerprint(self):
        return str(next(self._count))


class SameNames(Good):
    """Two layers of one name."""

    @property
    def layers(self):
        return tuple(dataclasses.replace(layer, name="conv") for layer in super().layers)


class Remembers(Good):
    """Answers for the first image of a size, whatever comes later."""

    def features(self, x, layer, **options):
        known = self.__dict__.setdefault("_known", {})
        key = (str(layer), x.shape, type(x))
        if key not in known:
            known[key] = super().features(x, layer, **options)
        return known[key]


class NoGradient(Good):
    """Says that it has gradients, and cuts them off."""

    def _run(self, x, names, grad):
        return {name: z.detach() for name, z in super()._run(x, names, grad).items()}


class Hooked(Good):
    """Leaves a hook behind at every run."""

    def _run(self, x, names, grad):
        self.module[0].register_forward_hook(lambda *_: None)
        return super()._run(x, names, grad)


class Hides(Good):
    """Cannot read a layer and does not say why."""

    @property
    def layers(self):
        first, *rest = super().layers
        return (dataclasses.replace(first, tappable=False), *rest)


BROKEN = {
    Overwritten: "readings_equal_the_reference",
    WrongLayer: "readings_equal_the_reference",
    EditsTheImage: "readings_belong_to_the_caller",
    TrainsOn: "model_is_left_unchanged",
    MixesTheBatch: "images_of_a_batch_are_independent",
    Random: "runs_are_repeatable",
    ModelUnits: "output_is_in_hounsfield_units",
    Double: "readings_have_form",
    Shrinks: "sizes_are_kept_or_refused",
    KeyErrors: "errors_are_of_the_family",
    OneFingerprint: "fingerprint_follows_the_weights",
    NewFingerprint: "fingerprint_follows_the_weights",
    SameNames: "layers_are_listed",
    Remembers: "images_of_a_batch_are_independent",
    NoGradient: "gradients_are_true",
    Hooked: "model_is_left_unchanged",
    Hides: "layers_are_listed",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_every_broken_adapter_is_caught(broken):
    assert BROKEN[broken] in failures(broken())


def test_every_check_catches_some_adapter_but_one():
    caught = set(BROKEN.values())
    assert {check.__name__ for check in CHECKS} - caught == {"layers_read_together_equal_those_read_alone"}


class Together(Good):
    """Several layers at once come out in one another's place."""

    def _run(self, x, names, grad):
        found = dict(super()._run(x, names, grad))
        return (
            found if len(names) == 1 else {name: found[name] * (1 + 0.1 * k) for k, name in enumerate(names)}
        )


def test_layers_read_together_are_compared_with_those_read_alone():
    assert "layers_read_together_equal_those_read_alone" in failures(Together())


def test_a_module_is_checked_as_it_is():
    assert {result.status for result in check_denoiser(network())} == {"passed"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file_passes_with_the_module_as_reference(exported_plain):
    module, path = exported_plain
    denoiser = adapters.load(path, intensity=UNITS, output="image", device="cpu")
    statuses = {result.check: result.status for result in check_denoiser(denoiser, reference=capture(module))}
    assert statuses.pop("fingerprint_follows_the_weights") == "skipped"
    assert set(statuses.values()) == {"passed"}


@pytest.fixture
def exported_plain(tmp_path):
    module, path = (
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)),
        tmp_path,
    )
    axes = {"x": {0: "n", 2: "h", 3: "w"}}
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 1, 64, 64),),
        str(path / "net.onnx"),
        input_names=["x"],
        dynamic_axes=axes,
        dynamo=False,
    )
    return module, path / "net.onnx"


KNOWN = {"sizes_are_kept_or_refused": "known", "output_is_in_hounsfield_units": "known"}


def test_failures_are_told_by_name_and_may_be_expected():
    told = r"2 of 13 checks of 'Sequential' fail:\s+output_is_.*\s+sizes_are_kept_or_refused: "
    with pytest.raises(CheckError, match=told) as caught:
        check_denoiser(Shrinks())
    assert [result.status for result in caught.value.results].count("passed") == 11
    results = check_denoiser(Shrinks(), expected_failures=KNOWN)
    assert {result.check for result in results if result.status == "xfail"} == set(KNOWN)
    with pytest.raises(CheckError, match=r"expected to fail \(known\), and passes"):
        check_denoiser(Good(), expected_failures={"runs_are_repeatable": "known"})
    with pytest.raises(ValueError, match="no check is called 'nothing'"):
        check_denoiser(Good(), expected_failures={"nothing": "known"})


@parametrize_checks([Good])
def test_one_test_for_each_check(denoiser, check):
    check(denoiser)


@parametrize_checks([Shrinks], expected_failures=KNOWN)
def test_expected_failures_are_marked(denoiser, check):
    check(denoiser)


def test_the_fixture_is_the_function(check_denoiser):
    assert len(check_denoiser(network())) == len(CHECKS)
