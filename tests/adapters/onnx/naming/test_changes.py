"""Files changed after their export: a layer's name gives what a hook on the module saw, or is refused."""

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.errors import LayerError
from torch import nn
from torch.nn import functional as F

LEVELS = ("ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL")
IMAGE = np.random.default_rng(0).normal(0, 300, (2, 1, 16, 16)).astype(np.float32)


class Activated(nn.Module):
    """Activations as modules and as functions, each fused by the runtime."""

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        self.conv2, self.conv3 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.relu_2 = nn.ReLU()

    def forward(self, x):
        return x - self.conv3(F.leaky_relu(self.conv2(self.relu1(self.conv1(x))), 0.2))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body, self.bn = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1)), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 1, 3, padding=1)
        for norm in (self.enc[1], self.bn):
            norm.running_mean.uniform_(-0.5, 0.5)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return x - self.conv3(F.relu(self.bn(self.body(self.enc(x)))))


class Scaled(nn.Module):
    """A scale and a shift that are no part of the convolutions that they are folded into."""

    def __init__(self):
        super().__init__()
        self.intro, self.conv = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.plain, self.ending = nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 1, 3, padding=1)
        self.beta = nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x):
        h = self.intro(x)
        return self.ending(h + self.plain(self.conv(h) * self.beta) + 0.5)


class Tokens(nn.Module):
    """Linear layers and a norm between turned axes, one of them turned back within its module."""

    def __init__(self):
        super().__init__()
        self.head, self.norm, self.act = nn.Conv2d(1, 8, 3, padding=1), nn.LayerNorm(8), nn.GELU()
        self.fc1, self.fc2, self.tail = nn.Linear(8, 16), nn.Linear(16, 8), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        h = self.norm(self.head(x).permute(0, 2, 3, 1))
        return self.tail(self.fc2(self.act(self.fc1(h))).permute(0, 3, 1, 2))


NETS = (Activated, Normed, Scaled, Tokens)


@pytest.fixture(scope="module")
def optimised(changing, tmp_path_factory):
    """``optimised(net, level, exporter)``: a network and its file as ONNX Runtime saved it."""
    made = {}

    def get(net, level, exporter="torchscript"):
        if (net, level, exporter) not in made:
            torch.manual_seed(0)
            folder, module = tmp_path_factory.mktemp("optimised"), net().eval()
            changing.export(module, folder / "plain.onnx", exporter, False)
            changing.runtime(level)(folder / "plain.onnx", folder / "changed.onnx")
            made[net, level, exporter] = module, folder / "changed.onnx"
        return made[net, level, exporter]

    return get


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("net", NETS)
def test_law_of_optimised_files(changing, optimised, net, level, exporter):
    module, path = optimised(net, level, exporter)
    tally = changing.Tally()
    tally.file(path, module, level)
    assert not tally.wrong
    assert tally.counts["files read"] == 1
    if exporter == "torchscript":
        assert sum(n for kind, n in tally.counts.items() if kind.endswith("right")) >= 1


def test_a_fused_activation_is_listed_as_what_it_is(changing, optimised, open_onnx):
    module, path = optimised(Activated, "ENABLE_EXTENDED")
    denoiser = open_onnx(path, intensity="unit:-1024:3072")
    seen = changing.hooked(module, (IMAGE + 1024) / 4096)
    names = [layer.name for layer in denoiser.layers if layer.tappable]
    assert {"conv1+relu", "conv2+leakyrelu", "conv3"} <= set(names)
    for name in ("conv1+relu", "relu1"):
        np.testing.assert_allclose(denoiser.features(IMAGE, name), seen["relu1"][0], atol=1e-5)
    with pytest.raises(LayerError, match=r"'conv1' .*relu was merged into it after the export") as caught:
        denoiser.features(IMAGE, "conv1")
    assert caught.value.matches == ("conv1+relu",)
    assert any("ONNX Runtime changed the file" in notice for notice in denoiser.notices)


def test_ordinals_count_convolutions_that_were_merged(changing, optimised, open_onnx):
    """Else ``conv2`` of a network that calls none so would be the third."""

    class Numbered(nn.Sequential):
        def __init__(self):
            super().__init__(
                nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
            )

    module, path = optimised(Numbered, "ENABLE_EXTENDED")
    denoiser = open_onnx(path, intensity="unit:-1024:3072")
    seen = changing.hooked(module, (IMAGE + 1024) / 4096)
    with pytest.raises(LayerError, match=r"conv1.*relu was merged"):
        denoiser.features(IMAGE, "conv1")
    np.testing.assert_allclose(denoiser.features(IMAGE, "conv2"), seen["2"][0], atol=1e-5)


def test_folded_norms_and_scales_are_refused_by_their_weights(optimised, open_onnx):
    denoiser = open_onnx(optimised(Scaled, "ENABLE_BASIC")[1], intensity="hu")
    with pytest.raises(LayerError, match="mul was merged into it") as caught:
        denoiser.features(IMAGE, "conv")
    assert caught.value.matches == ("conv+mul",)
    assert denoiser.features(IMAGE, "conv+mul").shape == (2, 8, 16, 16)


def test_blocked_layouts_lead_to_the_next_plain_tensor(changing, optimised, open_onnx):
    module, path = optimised(Activated, "ENABLE_ALL")
    denoiser = open_onnx(path, intensity="unit:-1024:3072")
    blocked = [layer for layer in denoiser.layers if "blocks" in layer.note and not layer.tappable]
    assert blocked
    for layer in blocked:
        with pytest.raises(LayerError, match="blocks of channels") as caught:
            denoiser.features(IMAGE, layer.name)
        assert denoiser.resolve(caught.value.matches[0]).tappable
    (last,) = (layer for layer in denoiser.layers if layer.name == "conv3")
    assert "cannot be told by name" in last.note
    expected = changing.hooked(module, (IMAGE + 1024) / 4096)["conv3"][0]
    np.testing.assert_allclose(denoiser.features(IMAGE, "conv3"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "made"), [("_v_61", True), ("ConvMulFusion_W_c.weight", True), ("c.weight", False)]
)
def test_weights_that_tools_made_are_told_by_their_names(conv_graph, open_onnx, name, made):
    """As onnxsim leaves them: the node and its tensor are called what they were."""

    def rename(model):
        model.producer_name = "pytorch"
        for node, old in zip(model.graph.node, ("a", "b", "y"), strict=True):
            for user in model.graph.node:
                user.input[:] = [f"{node.name}_output_0" if text == old else text for text in user.input]
            if old != "y":
                node.output[0] = f"{node.name}_output_0"
        for tensor, new in (("w1", name), ("b1", "c.bias")):
            next(t for t in model.graph.initializer if t.name == tensor).name = new
        model.graph.node[0].input[1:] = [name, "c.bias"]

    denoiser = open_onnx(conv_graph(names=("/c/Conv", "/r/Relu", "/d/Conv"), change=rename))
    if not made:
        assert denoiser.features(IMAGE, "c").shape == (2, 3, 16, 16)
        return
    with pytest.raises(LayerError, match=r"'c' .*(fold|merg)ed into it") as caught:
        denoiser.features(IMAGE, "c")
    for alias in ("/c/Conv", "/c/Conv_output_0"):
        with pytest.raises(LayerError, match=r"(fold|merg)ed into it"):
            denoiser.features(IMAGE, alias)
    assert denoiser.features(IMAGE, caught.value.matches[0]).shape == (2, 3, 16, 16)


def test_an_operator_that_another_took_the_place_of_is_refused(conv_graph, open_onnx):
    """As where a ReLU and a clip after it became one clip, under the name of the ReLU."""

    def rename(model):
        names = ("/c/Conv_output_0", "/r/Relu_output_0")
        for node, old, new in zip(model.graph.node, ("a", "b"), names, strict=False):
            node.output[0] = new
            for user in model.graph.node:
                user.input[:] = [new if text == old else text for text in user.input]
        model.graph.node[1].op_type, model.producer_name = "Sigmoid", "pytorch"

    denoiser = open_onnx(conv_graph(names=("/c/Conv", "/r/Relu", "/d/Conv"), change=rename))
    assert denoiser.resolve("c").tappable
    with pytest.raises(LayerError, match="its operator is Sigmoid where the export wrote Relu"):
        denoiser.features(IMAGE, "r")


def test_the_end_of_a_name_leads_nowhere_else_in_a_changed_file(optimised, open_onnx):
    """``conv`` alone must not be taken for another layer's ``x.conv`` once it may be gone."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh())
            self.inner.drop = nn.Conv2d(1, 1, 3, padding=1)
            self.drop = nn.Identity()

        def forward(self, x):
            return F.relu(self.drop(self.inner(x)) + x)

    denoiser = open_onnx(optimised(Twice, "ENABLE_BASIC")[1])
    assert denoiser.resolve("inner.drop").tappable
    with pytest.raises(LayerError, match=r"no layer is called 'drop', though one is called 'inner\.drop'"):
        denoiser.resolve("drop")


def test_containers_are_not_read_from_changed_files(optimised, open_onnx):
    """An optimiser may have taken a container's last operation."""
    denoiser = open_onnx(optimised(Normed, "ENABLE_BASIC")[1], intensity="unit:-1024:3072")
    with pytest.raises(LayerError, match="ONNX Runtime changed the file"):
        denoiser.features(IMAGE, "body")
    assert "enc.2" in {layer.name for layer in denoiser.layers}


def test_channels_last_convolutions_are_turned(conv_graph, open_onnx):
    """A reorder that ends in channels last is told by its attribute, not by its operator."""
    from ctinv.adapters.onnx.graph.layout import layouts
    from ctinv.adapters.onnx.graph.trace import Trace

    model = onnx.load(str(conv_graph()))
    model.graph.node[0].op_type = "ReorderOutput"
    model.graph.node[0].domain = "com.microsoft.nchwc"
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("channels_last", 1))
    assert layouts(Trace(model, "x"), "NCHW")["a"] == "NHWC"
    model.graph.node[0].attribute.pop()
    assert layouts(Trace(model, "x"), "NCHW")["a"] == "NCHW"


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_fuzz_of_networks_and_optimisers(changing, tmp_path, exporter):
    tally, tools = changing.Tally(), changing.optimisers()
    tools = {name: tools[name] for name in ("ORT ENABLE_EXTENDED", "ORT ENABLE_ALL")}
    changing.each(11 if exporter == "torchscript" else 4, exporter, tools, tally, tmp_path)
    assert not tally.wrong
    assert tally.counts["files read"] == 3


@pytest.mark.slow
def test_fuzz_of_networks_and_optimisers_long(changing, tmp_path):
    tally, tools = changing.Tally(), changing.optimisers()
    for seed in range(200, 230):
        for exporter in ("torchscript", "dynamo"):
            changing.each(seed, exporter, tools, tally, tmp_path)
    assert not tally.wrong
