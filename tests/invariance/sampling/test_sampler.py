"""What a sample is depends on seed, tile and number alone."""

import pytest
import torch
from ctinv.invariance.sampling.sampler import Sampler, decoding_type, invariance_noise


def test_noise_is_a_function_of_seed_tile_and_sample():
    whole = invariance_noise(5, 2, 0, 40, 33)
    for start, stop in ((0, 5), (7, 8), (13, 40)):
        assert torch.equal(invariance_noise(5, 2, start, stop, 33), whole[start:stop])
    assert len({row.numpy().tobytes() for row in whole}) == 40
    assert not torch.equal(invariance_noise(5, 3, 0, 40, 33), whole)
    assert not torch.equal(invariance_noise(6, 2, 0, 40, 33), whole)


def test_noise_is_standard_normal():
    v = torch.cat([invariance_noise(0, tile, 0, 100, 64) for tile in range(10)])
    assert v.mean().item() == pytest.approx(0, abs=0.02)
    assert v.std().item() == pytest.approx(1, abs=0.02)
    neighbours = torch.corrcoef(torch.stack([v[:-1].flatten(), v[1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 0.02


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bfloat16_is_chosen_only_where_it_is_native(device, monkeypatch):
    for native in (True, False):
        monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda native=native, **_: native)
        wanted = torch.bfloat16 if native else torch.float32
        assert decoding_type("auto", torch.device(device)) is wanted
        assert decoding_type("float32", torch.device(device)) is torch.float32
        assert decoding_type("bfloat16", torch.device(device)) is torch.bfloat16


def test_more_samples_start_with_the_same(explainer):
    sampler = Sampler(explainer.vae, explainer.flow)
    chosen = explainer.preset
    context = torch.zeros(1, chosen.flow.context, chosen.vae.code_size, chosen.vae.code_size)
    few, many = (torch.cat(list(sampler.draw(0, 4, n, context))) for n in (5, 63))
    assert few.shape == (5, 32, 32)
    assert many.shape == (63, 32, 32)
    assert torch.equal(many[:5], few)
