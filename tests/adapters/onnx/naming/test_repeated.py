"""Activations that repeat each other are merged into one: what stays must not pass for what is gone."""

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters
from torch import nn
from torch.nn import functional as F

IMAGE = np.random.default_rng(0).normal(0, 300, (2, 1, 16, 16)).astype(np.float32)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return F.relu(self.conv(x))


class Net(nn.Module):
    """One activation module that runs three times, once on what is rectified already."""

    def __init__(self):
        super().__init__()
        self.head, self.block, self.act = nn.Conv2d(1, 4, 3, padding=1), Block(), nn.ReLU()
        self.mid, self.tail = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        x = self.act(self.block(self.act(self.head(x))))
        return self.tail(self.act(self.mid(x)))


class Again(Net):
    """The module itself runs twice in a row, and once more after that."""

    def forward(self, x):
        x = self.act(self.act(self.block.conv(self.act(self.head(x)))))
        return self.tail(self.act(self.mid(x)))


class Keyed(nn.Module):
    """An activation in a dictionary, and another one of the same key beside it."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"act": nn.PReLU()})
        self.head, self.conv, self.act = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Sigmoid()
        self.norm, self.tail = nn.LayerNorm(8), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        x = self.act(self.conv(self.parts["act"](self.head(x))))
        return self.tail(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def without_repeated(source, target):
    """As optimisers do: of activations in a row the first ones go, and the last one reads what they read."""
    model = onnx.load(source)
    nodes = {output: node for node in model.graph.node for output in node.output}
    for node in list(model.graph.node):
        while node.op_type == "Relu" and (before := nodes.get(node.input[0])) and before.op_type == "Relu":
            node.input[0] = before.input[0]
            if before in model.graph.node:
                model.graph.node.remove(before)
    onnx.save(model, target)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


def loaded(path):
    return adapters.load(path, intensity="unit:-1024:3072", output="image", device="cpu")


def test_a_module_whose_activation_may_be_merged_into_the_next_is_told(net, changing, tmp_path):
    changing.export(net, tmp_path / "plain.onnx", "torchscript", False)
    without_repeated(tmp_path / "plain.onnx", tmp_path / "changed.onnx")
    seen = changing.hooked(net, (IMAGE + 1024) / 4096)
    plain, changed = loaded(tmp_path / "plain.onnx"), loaded(tmp_path / "changed.onnx")
    assert plain.features(IMAGE, "block") == pytest.approx(seen["block"][0], abs=1e-4)
    assert changed.features(IMAGE, "block.conv") == pytest.approx(seen["block.conv"][0], abs=1e-4)
    assert "unless a ReLU of its own was merged" in changed.resolve("block").note
    assert not plain.resolve("block").note


def test_calls_after_those_that_the_export_merged_are_told_to_be_numbered_otherwise(changing, tmp_path):
    net = Again().eval()
    changing.export(net, tmp_path / "dynamo.onnx", "dynamo", False)
    denoiser = loaded(tmp_path / "dynamo.onnx")
    seen = changing.hooked(net, (IMAGE + 1024) / 4096)["act"]
    calls = [layer for layer in denoiser.layers if layer.name.startswith("act")]
    assert len(calls) == 3
    for layer in calls:
        number = int(layer.name.partition("@")[2] or 0)
        right = np.allclose(denoiser.features(IMAGE, layer.name), seen[number], atol=1e-4)
        assert right or "numbered otherwise" in layer.note


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_of_two_activations_of_one_key_the_one_that_is_left_is_not_the_other(changing, tmp_path, level):
    torch.manual_seed(0)
    net = Keyed().eval()
    changing.export(net, tmp_path / "plain.onnx", "torchscript", False)
    changing.runtime(level)(tmp_path / "plain.onnx", tmp_path / "changed.onnx")
    denoiser, seen = loaded(tmp_path / "changed.onnx"), changing.hooked(net, (IMAGE + 1024) / 4096)
    for layer in denoiser.layers:
        if layer.tappable and layer.name in seen:
            right = np.allclose(denoiser.features(IMAGE, layer.name), seen[layer.name][0], atol=1e-3)
            assert right or layer.note, layer.name
