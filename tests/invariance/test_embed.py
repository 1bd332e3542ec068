"""Laws of the embedder and of how representations are cut: any layer, any shape."""

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.invariance.embed import MapEmbedder, as_map, coordinates
from ctinv.invariance.representation import RepresentationStore, probe_geometry
from torch import nn

REPRESENTATIONS = {
    "map": (4, 3, 32, 32),
    "strided": (4, 5, 16, 16),
    "odd": (4, 2, 29, 31),
    "coarse": (4, 6, 4, 4),
    "tokens": (4, 64, 7),
    "few tokens": (4, 6, 7),
    "vector": (4, 10),
}


@pytest.mark.parametrize("shape", REPRESENTATIONS.values(), ids=REPRESENTATIONS.keys())
def test_any_representation_becomes_a_context(shape):
    z = torch.randn(shape) * 50 + 7
    maps = as_map(z)
    embedder = MapEmbedder(maps.shape[1], tuple(maps.shape[2:]), code_size=8, context=5, width=4)
    embedder.initialise(z)
    where = coordinates([(8 * k, 0) for k in range(4)], [(64, 64)] * 4, 32, 8)
    h = embedder(z, where)
    assert h.shape == (4, 5, 8, 8)
    h.square().sum().backward()
    assert all(p.grad is not None for p in embedder.parameters())
    assert not torch.equal(h[0], h[1])


def test_tokens_keep_their_places():
    z = torch.arange(2 * 9 * 4.0).reshape(2, 9, 4)
    assert torch.equal(as_map(z)[1, :, 2, 1], z[1, 7])


def test_standardisation_is_per_channel_and_survives_constants():
    z = (
        torch.randn(64, 3, 8, 8) * torch.tensor([1.0, 1e4, 0])[:, None, None]
        + torch.tensor([5.0, -1e5, 3])[:, None, None]
    )
    embedder = MapEmbedder(3, (8, 8), 8, 4, 4)
    embedder.initialise(z)
    standard = embedder.standardise(z)
    assert standard.mean((0, 2, 3)).abs().max() < 1e-2
    torch.testing.assert_close(standard.std((0, 2, 3)), torch.tensor([1.0, 1, 0]), atol=1e-3, rtol=0)


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


@pytest.mark.parametrize("name", LAYERS)
def test_cuts_lie_where_the_patch_is(name):
    # A bright square far from everything: its cut must hold all of the layer's answer to it.
    image = np.zeros((96, 128), np.float32)
    image[44:52, 84:92] = 1000
    denoiser = adapters.wrap(Wrapped(LAYERS[name]), intensity="hu")
    quiet = np.zeros_like(image)
    store = RepresentationStore(denoiser, "layer", [image, quiet], 32)
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
    store.close()


def test_global_layers_see_each_patch_alone():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 4))
    denoiser = adapters.wrap(Wrapped(head), intensity="hu")
    rng = np.random.default_rng(0)
    image = rng.normal(size=(64, 64)).astype(np.float32) * 100
    store = RepresentationStore(denoiser, "layer", [image], 32)
    assert not store.geometry.local
    cut = store.cut([(0, 8, 16)])
    alone = torch.as_tensor(denoiser.features(image[None, None, 8:40, 16:48].copy(), "layer"))
    torch.testing.assert_close(cut.flatten(1), alone)


def test_border_cuts_repeat_the_edge():
    z = torch.arange(30.0 * 30).reshape(1, 1, 30, 30)
    geometry = probe_geometry(z, (34, 34), 16)
    assert geometry.offset == (-2, -2)
    corner = geometry.cut(z[0], 0, 0)
    assert corner.shape == (1, 16, 16)
    assert torch.equal(corner[0, 2:, 2:], z[0, 0, :14, :14])
    assert torch.equal(corner[0, :2, 2], z[0, 0, 0, 0].expand(2))


def test_wide_layers_keep_fewer_slices(monkeypatch):
    monkeypatch.setattr("ctinv.invariance.representation._MOST_BYTES", 3 * 2 * 5 * 64 * 64)
    denoiser = adapters.wrap(Wrapped(nn.Conv2d(1, 5, 3, padding=1)), intensity="hu")
    images = [np.full((64, 64), k, np.float32) for k in range(6)]
    store = RepresentationStore(denoiser, "layer", images, 32)
    assert store.count == 3
    assert store.cut([(2, 0, 0)]).shape == (1, 5, 32, 32)
    store.close()
