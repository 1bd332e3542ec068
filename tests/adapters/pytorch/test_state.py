"""A module is left as it was."""

import numpy as np
import torch
from torch import nn

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


class Sparse(nn.Module):
    """Keeps a sparse tensor, which has no one place in memory."""

    def __init__(self):
        super().__init__()
        self.kept = torch.tensor([[0.0, 2.0]]).to_sparse()
        self.register_buffer("buffer", torch.tensor([[3.0, 0.0]]).to_sparse())

    def forward(self, x):
        found = x * self.kept.to_dense()[0, 1]
        self.kept.mul_(2.0)
        self.buffer.mul_(2.0)
        return found


def test_sparse_tensors_are_put_back():
    module = Sparse()
    denoiser, x = wrap(module), image()
    np.testing.assert_array_equal(denoiser.denoise(x), denoiser.denoise(x))
    assert module.kept.to_dense().tolist() == [[0.0, 2.0]]
    assert module.buffer.to_dense().tolist() == [[3.0, 0.0]]
