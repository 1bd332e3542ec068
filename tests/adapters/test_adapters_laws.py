"""The one law of adapters, for every toy: what is read is true, and nothing is left behind."""

import pytest
import torch
from ctinv import adapters

from .laws import assert_reads_truly, captured, image, state_of
from .toys import TOYS, make


@pytest.mark.parametrize("name", sorted(TOYS))
def test_law_every_layer_reads_true_and_the_module_is_untouched(name):
    module = make(name)
    before = state_of(module)
    denoiser = adapters.wrap(module, intensity="unit:-160:240")
    kind = next((p.dtype for p in module.parameters()), torch.float32)

    def reference(u):
        return captured(module, u.to(kind))

    tolerance = 1e-5 if kind == torch.float32 else 2e-2
    compared = assert_reads_truly(denoiser, reference, image(), rtol=tolerance, atol=tolerance)
    assert compared == sum(layer.tappable for layer in denoiser.layers)
    assert compared >= 1
    denoiser.denoise(image())
    assert denoiser.fingerprint == denoiser.fingerprint
    assert state_of(module) == before
