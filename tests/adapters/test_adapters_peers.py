"""The law of adapters over denoisers of other projects, as modules and as both exporters write them."""

import copy
import warnings

import numpy as np
import pytest
import torch
from ctinv import adapters
from torch import nn

from .laws import captured, image, state_of
from .peers import PEERS, peer

LIGHT = [name for name, one in PEERS.items() if not one.heavy]
HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name, one in PEERS.items() if one.heavy]
UNITS = "unit:-1024:3072"
FEW = 6


class Fed(nn.Module):
    """A network whose further inputs are bound."""

    def __init__(self, net, feed):
        super().__init__()
        self.net, self.feed = net, feed

    def forward(self, x):
        return self.net(x, **self.feed)


@pytest.fixture
def some(request):
    """A few of the layers, from first to last; all of them in the long form."""

    def choose(names):
        if request.config.getoption("--slow") or len(names) <= FEW:
            return names
        return [names[round(k * (len(names) - 1) / (FEW - 1))] for k in range(FEW)]

    return choose


def assert_equal(found, expected, name):
    assert found.shape == expected.shape, name
    span = float(np.abs(expected).max())
    assert np.abs(found - expected).max() <= 2e-5 * span + 1e-7, name


@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_every_layer_of_a_module_reads_true(name, some):
    module, about = peer(name), PEERS[name]
    before = state_of(module)
    denoiser = adapters.wrap(module, intensity=UNITS, feed=about.feed or None)
    x = image(1 if about.heavy else 2, *about.size)
    u = denoiser.intensity.to_model(torch.from_numpy(x))
    expected = captured(module, u, **about.feed)
    names = [layer.name for layer in denoiser.layers if layer.tappable]
    assert set(names) == set(expected)
    chosen = some(names)
    for layer in chosen[:: max(1, len(chosen) // 3)]:
        assert_equal(denoiser.features(x, layer), expected[layer].numpy(), layer)
    for layer, z in denoiser.features(x, chosen).items():
        assert_equal(z, expected[layer].numpy(), layer)
    with torch.no_grad():
        y = denoiser.intensity.to_hu(module(u, **about.feed)).numpy()
    assert_equal(denoiser.denoise(x), y, "@output")
    assert state_of(module) == before


def check_export(name, exporter, export_onnx, open_onnx, tmp_path, some):
    about = PEERS[name]
    module = peer(name)
    net = Fed(module, about.feed) if about.feed else module
    free = not (about.heavy or (name, exporter) in FIXED)
    path = tmp_path / "peer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters'
        export_onnx(copy.deepcopy(net), path, exporter, (1, 1, *about.size), free=free)
    denoiser = open_onnx(path, intensity=UNITS)
    x = image(1 if about.heavy else 2, *about.size)
    u = denoiser.intensity.to_model(torch.from_numpy(x))
    expected = captured(net, u)
    layers = [layer for layer in denoiser.layers if layer.tappable]
    named = [layer.name for layer in layers if layer.name in expected]
    convolutions = {key for key, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    lost = {key.partition("@")[0] for key in expected} & convolutions - {n.partition("@")[0] for n in named}
    # A convolution that batch normalisation was folded into bears another name, or the normalisation's.
    every = {key for layer in layers for key in (layer.name, *layer.aliases)}
    after = {key: ".".join([*key.split(".")[:-1], str(int(key.split(".")[-1]) + 1)]) for key in lost}
    assert all(f"{key}+bn" in every or after[key] in every for key in lost), lost
    chosen = some(named)
    for layer, z in denoiser.features(x, chosen).items():
        assert_equal(z, expected[layer].numpy(), layer)
    with torch.no_grad():
        y = denoiser.intensity.to_hu(net(u)).numpy()
    assert_equal(denoiser.denoise(x), y, "@output")
    for layer in (chosen[0], chosen[-1]):
        twin = denoiser.twin(layer)
        assert (twin is None) == ((name, exporter) in NO_TWIN), layer
        if twin is not None:
            assert_equal(twin[0].features(x, twin[1]), expected[layer].numpy(), layer)


# One size only, or one image at a time: nothing that PyTorch could be given other images with.
NO_TWIN = {("transct", "legacy"), ("transct", "dynamo"), ("deepinv swinir", "legacy")} | {
    ("deepinv swinir", "dynamo")
}
# Exported for free sizes, it runs at no other than its own.
FIXED = {("deepinv swinir", "dynamo")}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if PEERS[n].like else ()) for n in LIGHT] + HEAVY
)
def test_exports_by_the_legacy_exporter_read_true(name, export_onnx, open_onnx, tmp_path, some):
    check_export(name, "legacy", export_onnx, open_onnx, tmp_path, some)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*LIGHT, *HEAVY])
def test_exports_by_the_dynamo_exporter_read_true(name, export_onnx, open_onnx, tmp_path, some):
    check_export(name, "dynamo", export_onnx, open_onnx, tmp_path, some)
