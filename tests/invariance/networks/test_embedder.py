"""Laws of the embedder and of how representations are cut: any layer, any shape."""

import pytest
import torch
from ctinv.invariance.networks.embedder import MapEmbedder, build_embedder
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.maps import as_map, coordinates

REPRESENTATIONS = {
    "map": (4, 3, 32, 32),
    "strided": (4, 5, 16, 16),
    "odd": (4, 2, 29, 31),
    "coarse": (4, 6, 4, 4),
    "large": (4, 2, 64, 128),
    "tokens": (4, 64, 7),
    "few tokens": (4, 6, 7),
    "vector": (4, 10),
}


@pytest.mark.parametrize("shape", REPRESENTATIONS.values(), ids=REPRESENTATIONS.keys())
@pytest.mark.parametrize("size", [1, 8])
def test_any_representation_becomes_a_context(shape, size):
    z = torch.randn(shape) * 50 + 7
    maps = as_map(z)
    embedder = build_embedder(maps.shape[1], tuple(maps.shape[2:]), code_size=size, context=5, width=4)
    embedder.initialise(z)
    where = coordinates([(8 * k, 0) for k in range(4)], [(64, 64)] * 4, 32, size)
    h = embedder(z, where)
    assert h.shape == (4, 5, size, size)
    h.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embedder.parameters())
    assert not torch.equal(h[0], h[1])
    # The representation and the place both tell.
    assert not torch.equal(embedder(z, where.flip(0)), h)
    assert not torch.equal(embedder(z.flip(0), where), h)


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


def test_border_cuts_repeat_the_edge():
    z = torch.arange(30.0 * 30).reshape(1, 1, 30, 30)
    geometry = probe_geometry(z, (34, 34), 16)
    assert geometry.offset == (-2, -2)
    corner = geometry.cut(z[0], 0, 0)
    assert corner.shape == (1, 16, 16)
    assert torch.equal(corner[0, 2:, 2:], z[0, 0, :14, :14])
    assert torch.equal(corner[0, :2, 2], z[0, 0, 0, 0].expand(2))
