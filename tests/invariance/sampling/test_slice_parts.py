"""What a slice's samples are put together from: contexts, reconstruction, kept samples, threads."""

import dataclasses

import numpy as np
import pytest
import torch
from ctinv.invariance.data.tiling import grid
from ctinv.invariance.representation.maps import coordinates
from ctinv.invariance.representation.reader import represent
from ctinv.invariance.sampling import slices as sampling
from ctinv.invariance.sampling.sampler import Sampler


@pytest.fixture(scope="module")
def tiles(explainer, image):
    return grid(image.shape, explainer.preset.vae.patch, explainer.preset.tile.overlap)


def where(corner, shape, explainer):
    return coordinates([corner], [shape], explainer.preset.vae.patch, explainer.preset.vae.code_size)


def test_a_local_layer_is_read_once_and_cut(explainer, image, tiles):
    found = sampling.tile_contexts(explainer, image, tiles).h
    z = represent(explainer.denoiser, explainer.layer, image[None, None])[0]
    assert len(found) == len(tiles) > 4
    for context, (row, column) in zip(found, tiles.corners, strict=True):
        part = explainer.geometry.cut(z, row, column)[None]
        with torch.no_grad():
            wanted = explainer.embedder(part, where((row, column), image.shape, explainer))
        torch.testing.assert_close(context[None], wanted)


def test_another_layer_is_read_tile_by_tile_as_if_each_stood_alone(explainer, image, tiles):
    geometry = dataclasses.replace(explainer.geometry, local=False)
    found = sampling.tile_contexts(dataclasses.replace(explainer, geometry=geometry), image, tiles).h
    p = tiles.patch
    for context, tile in zip(found, tiles, strict=True):
        z = represent(explainer.denoiser, explainer.layer, image[tile][None, None])
        with torch.no_grad():
            wanted = explainer.embedder(z, where((0, 0), (p, p), explainer))
        torch.testing.assert_close(context[None], wanted)


@pytest.mark.parametrize("some", [1, 4, 100])
def test_a_reconstruction_does_not_depend_on_how_many_tiles_go_at_once(
    explainer, image, tiles, some, monkeypatch
):
    wanted = sampling.reconstruct(explainer.vae, image, tiles)
    monkeypatch.setattr(sampling, "_TILES", some)
    np.testing.assert_allclose(sampling.reconstruct(explainer.vae, image, tiles), wanted, atol=1e-2)
    drawn = sampling.sample_slice(explainer, image, 2, 0, 0)
    np.testing.assert_allclose(drawn.reconstruction, wanted, atol=1e-2)
    assert drawn.samples.shape == (0, *image.shape)


def test_a_single_tile_is_reconstructed_by_the_autoencoder(explainer, image):
    small = image[:32, :32]
    found = sampling.reconstruct(explainer.vae, small, grid(small.shape, 32, 8))
    x = torch.from_numpy(small.copy())[None, None]
    with torch.no_grad():
        wanted = explainer.vae.decode(explainer.vae.encode(x, None), None)[0, 0]
    np.testing.assert_allclose(found, wanted, atol=1e-2)


@pytest.mark.parametrize(("keep", "samples"), [(3, 8), (60, 120), (50, 60), (9, 4)])
def test_the_first_samples_are_kept_across_portions(explainer, image, keep, samples):
    small = image[:32, :32]
    drawn = sampling.sample_slice(explainer, small, samples, 5, keep)
    context = sampling.tile_contexts(explainer, small, grid(small.shape, 32, 8)).h
    every = torch.cat(list(Sampler(explainer.vae, explainer.flow).draw(5, 0, samples, context))).numpy()
    assert every.shape == (samples, 32, 32)
    np.testing.assert_allclose(drawn.samples, every[:keep], atol=1e-2)
    np.testing.assert_allclose(drawn.mean, every.mean(0), atol=1e-2)


def test_progress_counts_tiles(explainer, image, tiles):
    told = []
    sampling.sample_slice(explainer, image, 2, 0, 0, lambda *step: told.append(step))
    assert told == [("sampling", k + 1, len(tiles)) for k in range(len(tiles))]


def test_as_many_threads_draw_as_there_are_and_none_loses_its_own():
    assert sampling.drawing_threads(torch.device("cpu")) == torch.get_num_threads()
    assert sampling.drawing_threads(torch.device("cuda")) == 1
    before = torch.get_num_threads()
    seen = list(sampling.one_each(lambda k: (k, torch.get_num_threads()), 5, 2))
    assert seen == [(k, 1) for k in range(5)]
    assert torch.get_num_threads() == before
