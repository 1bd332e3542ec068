"""Sampling within the memory that there is."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.sampling import slices as sampling
from ctinv.invariance.sampling.decoder import prepared_decoder
from ctinv.invariance.sampling.moments import Moments


@pytest.mark.parametrize("samples", [4, 60])
def test_memory_does_not_grow_with_the_samples(explainer, image, samples, monkeypatch):
    portions, most = [], 0

    class Watched(Moments):
        def add(self, portion):
            nonlocal most
            portions.append(weakref.ref(portion))
            gc.collect()
            most = max(most, sum(len(p) for p in (r() for r in portions) if p is not None))
            super().add(portion)

    monkeypatch.setattr(sampling, "Moments", Watched)
    sampling.sample_slice(explainer, image[:32, :32], samples, 0, 2)
    assert most <= 20


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("room", [1, 3, 8])
def test_lack_of_memory_halves_the_batch_and_goes_on(explainer, image, monkeypatch, error, room):
    wanted = sampling.sample_slice(explainer, image, 13, 0, 2)
    decode, sizes = prepared_decoder(explainer.vae), []

    def narrow(code, denoised=None):
        if len(code) > room:
            raise error("out of memory")
        sizes.append(len(code))
        return decode(code, denoised)

    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", lambda *_: narrow)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1)
    drawn = sampling.sample_slice(explainer, image, 13, 0, 2)
    assert max(sizes) <= room
    assert max(sizes) * 2 > min(room, 10) // 2
    np.testing.assert_allclose(drawn.mean, wanted.mean, atol=0.02)
    np.testing.assert_allclose(drawn.std, wanted.std, atol=0.02)


def test_no_memory_at_all_is_said(explainer, image, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", lambda *_: fail)
    with pytest.raises(CtinvError, match="single sample"):
        sampling.sample_slice(explainer, image, 13, 0, 2)


def test_the_memory_that_the_user_grants_bounds_the_batch(explainer, image, monkeypatch):
    sizes, prepare = [], prepared_decoder

    def watched(*about):
        decode = prepare(*about)
        return lambda code, denoised=None: (sizes.append(len(code)), decode(code, denoised))[1]

    monkeypatch.setattr("ctinv.invariance.sampling.sampler.prepared_decoder", watched)
    monkeypatch.setattr("ctinv.invariance.sampling.sampler._bytes_each", lambda _: 1000)
    memory = 4000 * torch.get_num_threads()  # each of them draws
    sampling.sample_slice(dataclasses.replace(explainer, memory=memory), image[:32, :32], 9, 0, 1)
    assert set(sizes) == {4}
