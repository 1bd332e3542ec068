"""Weight files as people have them, and as nobody should run them."""

import argparse
import collections
import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import ModelError
from ctinv.adapters.pytorch.weights import fill
from torch import nn


class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv1, self.bn, self.conv2 = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3)


def state(**changes):
    return {**Net(7).state_dict(), **changes}


def prefixed(prefix, weights=None):
    return {prefix + key: value for key, value in (weights or state()).items()}


def filled(tmp_path, content, module=None):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    module = module or Net()
    return module, *fill(module, path)


FORMS = {
    "bare": lambda: state(),
    "data parallel": lambda: prefixed("module."),
    "compiled": lambda: prefixed("_orig_mod."),
    "averaged by torch": lambda: {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "wrapped twice": lambda: prefixed("module._orig_mod."),
    "compiled inside": lambda: prefixed("model._orig_mod."),
    "any prefix": lambda: prefixed("net.denoiser."),
    "lightning": lambda: {"state_dict": prefixed("model."), "epoch": 1, "pytorch-lightning_version": "2.4.0"},
    "beside a loss": lambda: {"state_dict": {**prefixed("model."), "loss.vgg.weight": torch.zeros(3)}},
    "nested twice": lambda: {"model": {"state_dict": state()}},
    "another nest": lambda: {"my_weights": state(), "optimizer": {"state": {}}},
    "arrays": lambda: {key: value.numpy() for key, value in state().items()},
    "with the optimiser behind": lambda: [state(), {"lr": 0.1}],
    "checkpointed inside": lambda: {
        key.replace("conv1.", "conv1._checkpoint_wrapped_module."): value for key, value in state().items()
    },
    "sharded": lambda: prefixed("_fsdp_wrapped_module."),
    "old counters": lambda: {key: value for key, value in state().items() if "num_batches" not in key},
    **{
        key: (lambda key=key: {key: state(), "epoch": 3})
        for key in ("netG", "model_ema", "params", "generator", "G", "ema", "network", "params_ema")
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_and_filled_in(tmp_path, form):
    module, notes, _ = filled(tmp_path, FORMS[form]())
    want = Net(7).state_dict()
    assert all(torch.equal(value, want[key]) for key, value in module.state_dict().items())
    assert bool(notes) == (
        form not in ("bare", "data parallel", "compiled", "averaged by torch", "wrapped twice")
        and form not in ("arrays", "checkpointed inside", "sharded")
    )


@pytest.mark.parametrize("content", [state(), {"state_dict": state(), "args": argparse.Namespace(k=1)}])
def test_files_from_before_torch_1_6_are_read(tmp_path, content):
    path, module = tmp_path / "w.pth", Net()
    torch.save(content, path, _use_new_zipfile_serialization=False)
    fill(module, path)
    assert torch.equal(module.conv1.weight, state()["conv1.weight"])


def test_nothing_in_an_older_file_is_run(tmp_path, capsys):
    for content in (Runs(), {"more": Runs(), "weights": state()}):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        with pytest.raises(ModelError, match="never unpickled"):
            fill(Net(), tmp_path / "w.pth")
    assert "must not run" not in capsys.readouterr().out


def test_an_older_file_with_a_wrong_byte_is_refused_in_one_line(tmp_path):
    path, weights = tmp_path / "old.pth", state()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    # Such files name each storage where it is used, and once more before its values.
    storage = str(weights["conv1.weight"].untyped_storage()._cdata).encode()
    assert content.count(storage) == 2
    path.write_bytes(content.replace(storage, b"x" * len(storage), 1))
    with pytest.raises(ModelError, match="not a weight file saved by torch"):
        fill(Net(), path)


@pytest.mark.parametrize("kind", [AssertionError, MemoryError, OverflowError])
def test_whatever_torch_raises_over_a_damaged_file_is_told_in_one_line(tmp_path, monkeypatch, kind):
    """A wrong length in a file, for example, asks for more memory than there is."""
    torch.save(state(), tmp_path / "w.pth")

    def damaged(*_, **__):
        raise kind

    monkeypatch.setattr(torch, "load", damaged)
    with pytest.raises(ModelError, match=f"not a weight file saved by torch .{kind.__name__}."):
        fill(Net(), tmp_path / "w.pth")


def test_weights_of_the_part_that_holds_all_are_read(tmp_path):
    outer = nn.Module()
    outer.inner = Net()
    module, _, _ = filled(tmp_path, state(), outer)
    assert torch.equal(module.inner.conv1.weight, state()["conv1.weight"])


@pytest.mark.parametrize(
    ("likely", "other"),
    [("netG.", "netD."), ("model_ema.", "model."), ("ema_model.", "model."), ("generator.", "d.")],
)
def test_of_prefixes_that_fit_the_likeliest_is_taken_and_the_others_told(tmp_path, likely, other):
    weights = {**prefixed(other, Net(3).state_dict()), **prefixed(likely)}
    module, notes, _ = filled(tmp_path, weights)
    assert torch.equal(module.conv1.weight, state()["conv1.weight"])
    assert any(f"{likely!r}" in note and f"({other!r} would fit too)" in note for note in notes)


def test_averaged_weights_come_first_and_the_others_are_told(tmp_path):
    other = Net(3).state_dict()
    module, notes, _ = filled(tmp_path, {"params": other, "params_ema": state()})
    assert torch.equal(module.conv1.weight, state()["conv1.weight"])
    assert "weights are taken from 'params_ema' in w.pth ('params' would fit too)" in notes


def test_the_nest_that_fits_is_taken(tmp_path):
    content = {"netD": {"conv1.weight": torch.zeros(3)}, "netG": {"other": torch.zeros(1)}, "gen": state()}
    module, notes, _ = filled(tmp_path, content)
    assert torch.equal(module.conv2.weight, state()["conv2.weight"])
    assert any("'gen'" in note for note in notes)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("old", [True, False])
def test_both_namings_of_normalised_weights_are_read(tmp_path, old):
    new = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3)))
    former = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(1, 2, 3)))
    source, target = (former, new) if old else (new, former)
    module, _, _ = filled(tmp_path, source.state_dict(), target)
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(module(x), source(x))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("old", [True, False])
def test_both_namings_of_weights_of_limited_spectrum_are_read(tmp_path, old):
    new = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 2, 3)))
    former = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(1, 2, 3)))
    source, target = (former, new) if old else (new, former)
    module, _, _ = filled(tmp_path, source.state_dict(), target)
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(module.eval()(x), source.eval()(x))


class Settings:
    """What a trainer saves beside the weights."""

    def __init__(self, value):
        self.value = value


class Mapped(dict):
    """Settings that are a mapping too."""


def test_objects_beside_the_weights_are_passed_over(tmp_path):
    content = {
        "state_dict": prefixed("model."),
        "hyper_parameters": Mapped(rate=1e-3, nested=Settings(3)),
        "callbacks": {"Checkpoint": {"path": Path("a/b"), "args": argparse.Namespace(k=1)}},
        "seen": collections.Counter("abc"),
        "scores": {"best": np.float64(0.5), "all": np.arange(3.0)},
        "kind": Settings,
    }
    module, _, _ = filled(tmp_path, content)
    assert torch.equal(module.conv1.bias, state()["conv1.bias"])


class Runs:
    def __reduce__(self):
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    "content", [Runs(), {"state_dict": state(), "more": Runs()}, {"conv1.weight": Runs()}]
)
def test_nothing_in_a_file_is_run(tmp_path, capsys, content):
    weights = isinstance(content, dict) and "state_dict" in content
    with contextlib.nullcontext() if weights else pytest.raises(ModelError, match="never unpickled"):
        filled(tmp_path, content)
    assert "must not run" not in capsys.readouterr().out


def test_whole_models_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"never unpickled.*save model\.state_dict\(\)"):
        filled(tmp_path, Net())


def test_what_does_not_fit_is_told(tmp_path):
    weights = {k: v for k, v in state(more=torch.zeros(1)).items() if k != "conv2.bias"}
    told = r"\(state_dict\) does not fit Net: .*conv2\.bias.*1 unknown \(more\)"
    with pytest.raises(ModelError, match=told):
        filled(tmp_path, {"state_dict": weights})
    with pytest.raises(ModelError, match=r"conv1\.bias is \(5,\) in the file and \(4,\) in the network"):
        filled(tmp_path, state(**{"conv1.bias": torch.zeros(5)}))


@pytest.mark.parametrize("name", ["a+b.pth", "50% dose.pth", "a&b=c.pth", "a?b.pth", "a b.pth", "a%20b.pth"])
def test_file_names_may_hold_any_signs(tmp_path, monkeypatch, name):
    from ctinv import adapters

    (tmp_path / "weights_of_any_name.py").write_text(
        "from torch import nn\ndef net(): return nn.Conv2d(1, 1, 3, padding=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = nn.Conv2d(1, 1, 3, padding=1).state_dict()
    torch.save(weights, tmp_path / name)
    denoiser = adapters.load(
        f"weights_of_any_name:net?weights={tmp_path / name}", intensity="hu", device="cpu"
    )
    assert torch.equal(denoiser.module.weight, weights["weight"])
