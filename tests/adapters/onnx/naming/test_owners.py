"""Modules behind bare keys: the older exporter writes of some only the last part of their name."""

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.errors import LayerError
from ctinv.adapters.onnx.naming.scopes import read_scopes
from torch import nn

from tests.adapters.laws import assert_reads_truly, captured, image


class Inner(nn.Module):
    """A module whose parts lie in a dictionary beside one of the same key."""

    def __init__(self):
        super().__init__()
        self.d = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, padding=1), "act": nn.ReLU()})
        self.conv, self.act = nn.Conv2d(4, 4, 1), nn.Sigmoid()

    def forward(self, x):
        return self.act(self.conv(self.d["act"](self.d["conv"](x))))


class Keyed(nn.Module):
    """Convolutions of one key at four places, called in another order than they are made."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.d = nn.ModuleDict({"conv": nn.Conv2d(4, 4, 3, padding=1), "head": nn.Conv2d(1, 4, 3, padding=1)})
        self.parts = nn.ModuleList([nn.ModuleDict({"conv": nn.Conv2d(4, 4, 1), "inner": Inner()})])
        self.acts = nn.ModuleDict({"relu": nn.LeakyReLU(0.3), "tanh": nn.Tanh()})
        self.relu, self.tail = nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        h = self.relu(self.acts["relu"](self.d["conv"](self.d["head"](x))))
        h = self.parts[0]["inner"](self.parts[0]["conv"](self.conv(h)))
        return x - self.tail(self.acts["tanh"](h))


class Reached(nn.Module):
    """Parts of a module that are called one by one, so that the module itself never runs."""

    def __init__(self):
        super().__init__()
        self.enc, self.body = Inner(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.head, self.tail = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        h = self.enc.act(self.enc.conv(self.conv(self.head(x))))
        return self.tail(self.body[0](self.body(h)))


class Dictionaries(nn.Module):
    """Activations alone lie in a dictionary, one of them under the key of another module."""

    def __init__(self):
        super().__init__()
        self.acts, self.relu = nn.ModuleDict({"relu": nn.LeakyReLU(0.3)}), nn.ReLU()
        self.head, self.tail = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.tail(self.relu(self.acts["relu"](self.head(x))))


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("net", [Keyed, Reached])
def test_law_bare_keys_name_no_other_module(export_onnx, open_onnx, tmp_path, net, exporter):
    torch.manual_seed(0)
    module = net().eval()
    denoiser = open_onnx(export_onnx(module, tmp_path / "k.onnx", exporter), intensity="unit:-1024:3072")
    x = image(2, 16, 24)
    expected = captured(module, denoiser.intensity.to_model(torch.from_numpy(x)))
    modules = dict(module.named_modules())
    weighted = [name for name in expected if isinstance(modules.get(name), nn.Conv2d)]
    assert assert_reads_truly(denoiser, lambda _u: expected, x, 1e-4) >= len(weighted)
    listed = {layer.name for layer in denoiser.layers}
    assert set(weighted) <= listed
    told = {layer.name.partition("@")[0]: layer for layer in denoiser.layers}
    untrue = [name for name in told if "/" not in name and name not in modules and not told[name].note]
    assert not [name for name in untrue if name in {key.rpartition(".")[2] for key in modules}]


@pytest.mark.parametrize("net", [Keyed, Reached, Inner])
def test_law_every_module_is_right_refused_or_told(export_onnx, open_onnx, tmp_path, net):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 1), net(), nn.Conv2d(4, 1, 1)) if net is Inner else net()
    denoiser = open_onnx(
        export_onnx(module.eval(), tmp_path / "k.onnx", "legacy"), intensity="unit:-1024:3072"
    )
    x = image(1, 16, 24)
    expected = captured(module, denoiser.intensity.to_model(torch.from_numpy(x)))
    for name in dict(module.named_modules()):
        try:
            z = denoiser.features(x, name) if name else None
        except LayerError:
            continue
        if name and name in expected and not denoiser.resolve(name).note:
            np.testing.assert_allclose(z, expected[name], atol=1e-4, err_msg=name)


def test_calls_of_one_key_are_told_to_be_doubtful(export_onnx, open_onnx, tmp_path):
    torch.manual_seed(0)
    path = export_onnx(Dictionaries().eval(), tmp_path / "d.onnx", "legacy")
    denoiser = open_onnx(path, intensity="unit:-1024:3072")
    calls = [layer for layer in denoiser.layers if layer.name.startswith("relu@")]
    assert len(calls) == 2
    assert all("same key" in layer.note for layer in calls)
    with pytest.raises(LayerError, match="2 times"):
        denoiser.features(image(1), "relu")


def scopes(nodes, stored=()):
    """Module, call, calls and certainty of nodes given as name and operands."""
    made = [onnx.helper.make_node("X", list(operands), ["y"], name=name) for name, operands in nodes]
    return [(s.module, s.call, s.calls, s.certain) for s in read_scopes(made, set(stored)) if s]


W = {"d.conv.weight", "conv.weight", "l.2.s.d.conv.weight", "l.2.s.conv.weight", "enc.conv.weight"}


def test_a_weight_tells_whose_a_node_is():
    nodes = [("/conv/Conv", ["d.conv.weight"]), ("/conv_1/Conv", ["conv.weight"])]
    assert scopes(nodes, W) == [("d.conv", 0, 1, True), ("conv", 0, 1, True)]


def test_a_part_between_is_told_by_the_weights_inside_it():
    nodes = [
        ("/s/conv/Conv", ["l.2.s.d.conv.weight"]),
        ("/s/act/Relu", []),
        ("/s/conv_1/Conv", ["l.2.s.conv.weight"]),
    ]
    found = read_scopes([onnx.helper.make_node("X", i, ["y"], name=n) for n, i in nodes], W)
    assert [(s.module, s.parents, s.certain) for s in found] == [
        ("l.2.s.d.conv", ("l.2.s",), True),
        ("l.2.s.act", ("l.2.s",), False),  # its dictionary, if it lies in one, is not written down
        ("l.2.s.conv", ("l.2.s",), True),
    ]


def test_one_module_reached_in_two_ways_has_its_calls_in_order():
    nodes = [("/seq/seq.0/Conv", ["seq.0.weight"]), ("/seq.0/Conv", ["seq.0.weight"])]
    assert scopes(nodes, {"seq.0.weight"}) == [("seq.0", 0, 2, True), ("seq.0", 1, 2, True)]


def test_shared_weights_leave_it_open_which_module_runs():
    nodes = [("/enc/conv/Conv", ["enc.conv.weight"]), ("/conv/Conv", ["enc.conv.weight"])]
    assert [certain for *_, certain in scopes(nodes, W)] == [False, False]
    twice = [("/conv/Conv", ["d.conv.weight"]), ("/conv_1/Conv", ["d.conv.weight"])]
    assert [certain for *_, certain in scopes(twice, W)] == [False, False]


def test_a_weight_of_another_module_is_no_sign():
    nodes = [("/conv2/Conv", ["conv1.weight"]), ("/up/Mul", ["net.gain"])]
    assert scopes(nodes, {"conv1.weight", "net.gain"}) == [("conv2", 0, 1, True), ("up", 0, 1, True)]


def test_keys_that_repeat_are_found_fast():
    deep = ".".join(["a"] * 60)
    path = "/" + "/".join(["a"] * 30)
    assert scopes([(f"{path}/Conv", [f"{deep}.weight"])], {f"{deep}.weight"})[0][0] == deep
