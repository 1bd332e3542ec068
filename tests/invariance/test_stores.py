"""Laws of what is kept of a layer's output: it is the layer's, at the right place, and bounded."""

import contextlib

import numpy as np
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.adapters.errors import CtinvError
from ctinv.invariance import stores as module
from ctinv.invariance.representation import Reader
from ctinv.invariance.stores import keep_patches, open_stores, passes
from torch import nn

LAYERS = {
    "same": nn.Conv2d(1, 3, 3, padding=1),
    "valid": nn.Conv2d(1, 3, 5),
    "strided": nn.Conv2d(1, 3, 4, stride=4),
    "upsampled": nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(1, 2, 1)),
}


class Wrapped(nn.Module):
    """A layer and a head that gives an image back."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        self.layer(x)
        return x


class Branching(nn.Module):
    """Two maps and a vector."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 2, 2, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.vector = nn.Flatten()

    def forward(self, x):
        self.vector(self.pool(self.second(self.first(x))))
        return x


def wrapped(layer):
    return adapters.wrap(Wrapped(layer), intensity="hu", output="image")


def count_runs(denoiser, monkeypatch):
    """A list that grows with every run of the network."""
    run, runs = denoiser._run, []

    def counted(x, names, grad):
        if names != ["@output"]:  # what the adapter asks for its own ends
            runs.append(tuple(names))
        return run(x, names, grad)

    monkeypatch.setattr(denoiser, "_run", counted)
    return runs


def noise(count, *shape):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 100, shape).astype(np.float32) for _ in range(count)]


@contextlib.contextmanager
def store_of(denoiser, images, patch):
    with open_stores(denoiser, ["layer"], images, patch) as found:
        yield found["layer"]


@pytest.mark.parametrize("name", LAYERS)
def test_cuts_lie_where_the_patch_is(name):
    # A bright square far from everything: its cut must hold all of the layer's answer to it.
    image = np.zeros((96, 128), np.float32)
    image[44:52, 84:92] = 1000
    denoiser = wrapped(LAYERS[name])
    quiet = np.zeros_like(image)
    with store_of(denoiser, [image, quiet], 32) as store:
        assert store.geometry.local
        there = store.cut([(0, 32, 72)]) - store.cut([(1, 32, 72)])
        elsewhere = store.cut([(0, 32, 0)]) - store.cut([(1, 32, 0)])
    whole = torch.as_tensor(
        denoiser.features(image[None, None], "layer") - denoiser.features(quiet[None, None], "layer")
    )
    assert elsewhere.abs().max() == 0
    torch.testing.assert_close(there.abs().sum(), whole.abs().sum(), rtol=2e-3, atol=0)
    centre = ((there.abs().sum((0, 1)) > 0).nonzero() + 0.5).mean(0) / there.shape[-1]
    assert (centre - 0.5).abs().max() < 0.05


def test_global_layers_see_each_patch_alone_and_once(monkeypatch):
    denoiser = adapters.wrap(Branching(), intensity="hu", output="image")
    images = noise(2, 64, 64)
    places = [(0, 8, 16), (1, 0, 0), (0, 32, 32), (1, 0, 0)]
    with open_stores(denoiser, ["vector"], images, 32) as found:
        store = found["vector"]
        assert not store.geometry.local
        asked = store.cut(places)
        keep_patches([store], places)
        runs = count_runs(denoiser, monkeypatch)
        torch.testing.assert_close(store.cut(places), asked, rtol=1e-3, atol=1e-3 * asked.abs().max().item())
        assert not runs
    alone = denoiser.features(images[0][None, None, 8:40, 16:48].copy(), "vector")
    torch.testing.assert_close(asked[:1].flatten(1), torch.as_tensor(alone))


def test_one_run_a_slice_serves_all_layers(monkeypatch):
    denoiser = adapters.wrap(Branching(), intensity="hu", output="image")
    images = noise(5, 64, 64)
    runs = count_runs(denoiser, monkeypatch)
    with open_stores(denoiser, ["first", "second"], images, 32) as found:
        assert runs == [("first", "second")] * len(images)
        together = {name: store.cut([(3, 16, 24), (4, 0, 32)]) for name, store in found.items()}
    for name, values in together.items():
        with open_stores(denoiser, [name], images, 32) as found:
            assert torch.equal(found[name].cut([(3, 16, 24), (4, 0, 32)]), values)


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_layers_read_together_give_the_bits_of_each_alone(tmp_path, exporter):
    layers = ["conv1", "relu2", "conv3", "conv5"]
    image = noise(1, 1, 1, 48, 48)[0]
    file = adapters.load(zoo.export("chen", tmp_path / "chen.onnx", exporter=exporter))
    for denoiser in (zoo.load("chen"), file):
        together = Reader(denoiser, layers)(image)
        for layer in layers:
            assert torch.equal(Reader(denoiser, [layer])(image)[layer], together[layer])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_bands_of_large_maps_hold_what_whole_maps_hold(monkeypatch, layer, share):
    denoiser, images = wrapped(LAYERS[layer]), noise(4, 160, 96)
    with store_of(denoiser, images, 16) as store:
        assert all(rows == tuple(range(0, 145, 8)) for rows in store.starts)
        size = 2 * denoiser.features(images[0][None, None], "layer").size * len(images)
        monkeypatch.setattr(module, "_LAYER_BYTES", share * size)
        with store_of(denoiser, images, 16) as banded:
            assert banded.count == len(images)
            assert len(set(banded.starts)) > 1
            for k, rows in enumerate(banded.starts):
                assert 0 < len(rows) < 0.8 * len(store.starts[k])
                places = [(k, row, column) for row in rows for column in (0, 40, 80)]
                assert torch.equal(banded.cut(places), store.cut(places))


def test_bands_lie_anywhere(monkeypatch):
    denoiser, images = wrapped(LAYERS["same"]), noise(60, 64, 16)
    monkeypatch.setattr(module, "_LAYER_BYTES", 60 * 64 * 16 * 3 * 2 * 0.6)
    with store_of(denoiser, images, 16) as store:
        seen = np.bincount([row // 8 for rows in store.starts for row in rows], minlength=7)
    assert seen.min() > 0.5 * seen.max()


def test_very_wide_layers_keep_fewer_slices(monkeypatch):
    monkeypatch.setattr(module, "_LAYER_BYTES", 3 * 2 * 5 * 64 * 64)
    denoiser = wrapped(nn.Conv2d(1, 5, 3, padding=1))
    images = [np.full((64, 64), k, np.float32) for k in range(6)]
    with store_of(denoiser, images, 32) as store:
        assert store.count == 3
        assert store.cut([(2, 0, 0)]).shape == (1, 5, 32, 32)


def test_what_lies_on_disk_is_bounded_and_goes_away(monkeypatch):
    denoiser, images = wrapped(nn.Conv2d(1, 8, 3, padding=1)), noise(8, 256, 256)
    bound = 0.5 * 8 * 8 * 256 * 256 * 2
    monkeypatch.setattr(module, "_LAYER_BYTES", bound)
    with store_of(denoiser, images, 32) as store:
        files = list(store._folder.iterdir())
        assert len(files) == 8
        assert sum(512 * file.stat().st_blocks for file in files) < 1.2 * bound
        folder = store._folder
    assert not folder.exists()


def test_layers_are_read_in_as_few_passes_as_find_room(monkeypatch):
    denoiser = zoo.load("chen")
    images = noise(4, 64, 64)
    assert passes(denoiser, ["conv1", "conv3", "conv5"], images) == [["conv1", "conv3", "conv5"]]
    one = 2 * 4 * 64 * 64 * 64
    monkeypatch.setattr(module, "_LAYER_BYTES", one)
    monkeypatch.setattr(module, "_PASS_BYTES", 1.6 * one)
    assert passes(denoiser, ["conv1", "conv3", "conv5"], images) == [["conv1", "conv3", "conv5"]]
    assert passes(denoiser, ["conv1", "relu2", "conv5"], images) == [["conv1"], ["relu2", "conv5"]]


def test_values_that_are_not_finite_are_refused():
    class Exploding(nn.Module):
        def forward(self, x):
            return x * 1e38

    with (
        pytest.raises(CtinvError, match=r"layer.*not finite"),
        store_of(wrapped(Exploding()), noise(2, 64, 64), 32),
    ):
        pass
