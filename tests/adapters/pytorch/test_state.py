"""A module is left as it was."""

import numpy as np

from ..laws import image, state_of
from ..toys import make
from .toys import wrap


def test_T13_training_mode_is_left_as_it_was():
    module = make("TrainMode")
    before = state_of(module)
    denoiser = wrap(module)
    x = image()
    first = denoiser.features(x, "drop")
    assert np.array_equal(first, denoiser.features(x, "drop"))
    assert np.array_equal(first, denoiser.features(x, "frozen"))
    assert state_of(module) == before
    assert (module.training, module.norm.training, module.frozen.training) == (True, True, False)
    assert any("training mode" in notice for notice in denoiser.notices)


def test_T18_plain_attributes_and_buffers_are_put_back():
    module = make("PlainTensors")
    before = state_of(module)
    denoiser = wrap(module)
    for _ in range(2):
        denoiser.features(image(), "conv")
        denoiser.denoise(image())
    assert state_of(module) == before
    assert module.calls == 0


def test_T18_weights_edited_by_forward_are_put_back():
    module = make("EditsWeights")
    before = state_of(module)
    denoiser = wrap(module)
    x = image()
    first = denoiser.denoise(x)
    assert np.array_equal(denoiser.denoise(x), first)
    assert state_of(module) == before
    assert any("edits its own weights" in notice for notice in denoiser.notices)
