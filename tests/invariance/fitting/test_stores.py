"""Laws of what is kept of a layer's output: it is the layer's, at the right place, and bounded."""

import contextlib

import numpy as np
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.fitting import stores as module
from ctinv.invariance.fitting.stores import Blocks, open_stores, passes
from ctinv.invariance.representation.reader import Reader
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


def everywhere(images, patch):
    """All places of patches, shuffled."""
    rows, columns = (range(0, side - patch + 1, 8) for side in images[0].shape)
    places = [(k, row, column) for k in range(len(images)) for row in rows for column in columns]
    return [places[k] for k in np.random.default_rng(0).permutation(len(places))]


@contextlib.contextmanager
def store_of(denoiser, images, patch, places=None):
    blocks = Blocks(images, places or everywhere(images, patch), patch)
    with open_stores(denoiser, ["layer"], blocks) as found:
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
    with open_stores(denoiser, ["vector", "pool"], Blocks(images, places, 32)) as found:
        runs = count_runs(denoiser, monkeypatch)
        for store in found.values():
            assert not store.geometry.local
            cut = store.cut(places)
            assert not runs
            for (k, i, j), one in zip(places, cut, strict=True):
                alone = denoiser.features(images[k][None, None, i : i + 32, j : j + 32].copy(), store.layer)
                expected = torch.as_tensor(alone).flatten()
                torch.testing.assert_close(
                    one.flatten(), expected, rtol=1e-3, atol=1e-3 * cut.abs().max().item()
                )
            runs.clear()


def test_one_run_a_slice_serves_all_layers(monkeypatch):
    denoiser = adapters.wrap(Branching(), intensity="hu", output="image")
    images, places = noise(5, 64, 64), [(3, 16, 24), (4, 0, 32), (0, 0, 0)]
    blocks = Blocks(images, places, 32)
    runs = count_runs(denoiser, monkeypatch)
    with open_stores(denoiser, ["first", "second"], blocks) as found:
        assert runs == [("first", "second")] * len(images)
        together = {name: store.cut(places) for name, store in found.items()}
    for name, values in together.items():
        with open_stores(denoiser, [name], blocks) as found:
            assert torch.equal(found[name].cut(places), values)


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
@pytest.mark.parametrize("shape", [(96, 64), (90, 77)])
@pytest.mark.parametrize("patch", [16, 20])
def test_blocks_hold_what_whole_maps_hold(layer, shape, patch):
    denoiser, images = wrapped(LAYERS[layer]), noise(2, *shape)
    places = everywhere(images, patch)
    with store_of(denoiser, images, patch, places) as store:
        found = store.cut(places)
        for (k, row, column), one in zip(places, found, strict=True):
            z = torch.as_tensor(denoiser.features(images[k][None, None], "layer"))[0]
            expected = store.geometry.cut(z, row, column)
            torch.testing.assert_close(one, expected, rtol=2e-3, atol=1e-4 * found.abs().max().item())


def test_only_what_patches_cover_is_kept():
    denoiser, images = wrapped(nn.Conv2d(1, 8, 3, padding=1)), noise(3, 128, 128)
    places = [(0, 0, 0), (0, 0, 8), (0, 0, 0), (2, 96, 96)]
    with store_of(denoiser, images, 32, places) as store:
        assert store.count == len(places)
        assert store._file.stat().st_size == (4 * 5 + 4 * 4) * 8 * 64 * 2
        with pytest.raises(ValueError, match="not among those"):
            store.cut([(1, 0, 0)])
        folder = store._file.parent
    assert not folder.exists()


@pytest.mark.parametrize("layer", ["same", "vector"])
def test_of_very_wide_layers_the_first_patches_are_kept(monkeypatch, layer):
    kinds = {"same": nn.Conv2d(1, 8, 1), "vector": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())}
    denoiser, images = wrapped(kinds[layer]), noise(4, 64, 64)
    places = [(k, row, column) for k in range(4) for row in (0, 32) for column in (0, 32)]
    each = 32 * 32 * 8 * 2 if layer == "same" else 2
    monkeypatch.setattr(module, "_BYTES", 5.5 * each)
    with store_of(denoiser, images, 32, places) as store:
        assert store.count == 5
        assert store._file.stat().st_size == 5 * each
        monkeypatch.undo()
        with store_of(denoiser, images, 32, places) as whole:
            assert whole.count == len(places)
            torch.testing.assert_close(store.cut(places[:5]), whole.cut(places[:5]), rtol=0, atol=0)


def test_layers_are_read_in_as_few_passes_as_find_room(monkeypatch):
    denoiser = zoo.load("chen")
    images = noise(4, 64, 64)
    blocks = Blocks(images, everywhere(images, 32), 32)
    assert passes(denoiser, ["conv1", "conv3", "conv5"], blocks) == [["conv1", "conv3", "conv5"]]
    one = 2 * 4 * 64 * 64 * 64
    monkeypatch.setattr(module, "_BYTES", 1.6 * one)
    assert passes(denoiser, ["conv1", "conv3", "conv5"], blocks) == [["conv1", "conv3", "conv5"]]
    assert passes(denoiser, ["conv1", "relu2", "conv5"], blocks) == [["conv1"], ["relu2", "conv5"]]


def test_values_that_are_not_finite_are_refused():
    class Exploding(nn.Module):
        def forward(self, x):
            return x * 1e38

    with (
        pytest.raises(CtinvError, match=r"layer.*not finite"),
        store_of(wrapped(Exploding()), noise(2, 64, 64), 32),
    ):
        pass
