"""What a layer may return: several tensors, tokens, other element types."""

import types

import numpy as np
import pytest
import torch
from ctinv.adapters import LayerError, ModelError, UnsupportedModelError
from torch import nn

from ..laws import image
from ..toys import TOYS, Half, ManyOutputs, make
from .toys import wrap


def test_T07_results_of_several_tensors_need_a_selector():
    denoiser = wrap(make("TupleInside"))
    names = [layer.name for layer in denoiser.layers]
    assert names == [
        *("pair.conv", "pair[0]", "pair[2]"),
        *('named["h"]', 'named["gate"][0]', 'named["gate"][1]', "single", "recorder"),
    ]
    x = image()
    with pytest.raises(
        LayerError, match=r"returns 2 tensors; say which: pair\[0\] \(2x64x64\), pair\[2\] \(2\)"
    ):
        denoiser.features(x, "pair")
    assert np.array_equal(denoiser.features(x, "pair[0]"), denoiser.features(x, "pair.conv"))
    assert np.array_equal(denoiser.features(x, "named['h']"), denoiser.features(x, 'named["h"]'))
    assert np.array_equal(denoiser.features(x, "single[0]"), denoiser.features(x, "single"))
    assert denoiser.features(x, "pair[2]").shape == (3, 2)


def test_T07_network_of_several_outputs_needs_a_choice():
    module = TOYS["Plain"]()
    many = ManyOutputs()
    many.load_state_dict(module.state_dict())
    with pytest.raises(UnsupportedModelError, match=r'returns 2 tensors .*\["image"\].*output_tensor'):
        wrap(many).denoise(image())
    with pytest.raises(ModelError, match=r"output_tensor='\[1\]' is not among"):
        wrap(many, output_tensor="[1]").denoise(image())
    chosen = wrap(many, output_tensor='["image"]').denoise(image())
    assert np.array_equal(chosen, wrap(module).denoise(image()))


class Nested(nn.Module):
    def forward(self, x):
        return (0.5 * x, x.mean()), 0.25 * x


class Opaque(nn.Module):
    def forward(self, x):
        return types.SimpleNamespace(sample=x)


def test_nested_outputs_are_named_so_that_they_can_be_chosen():
    with pytest.raises(UnsupportedModelError, match=r"output_tensor='\[0\]\[0\]' or the like"):
        wrap(Nested()).denoise(image())
    last = wrap(Nested(), output_tensor="[1]").denoise(image())
    for asked in ("-1", "[-1]", " [1] "):
        np.testing.assert_array_equal(wrap(Nested(), output_tensor=asked).denoise(image()), last)
    with pytest.raises(UnsupportedModelError, match="SimpleNamespace, in which no tensor is found"):
        wrap(Opaque()).denoise(image())


def test_T15_autocast_is_off_inside():
    denoiser = wrap(make("Plain"))
    x = image()
    want = denoiser.features(x, "conv1")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = denoiser.features(x, "conv1")
        assert torch.is_autocast_enabled("cpu")
    assert np.array_equal(got, want)


def test_T15_half_precision_models_give_float32_and_say_so():
    denoiser = wrap(Half())
    assert denoiser.features(image(), "conv1").dtype == np.float32
    assert "bfloat16" in denoiser.resolve("conv1").note


def test_tokens_come_as_they_are_and_constants_are_not_readable():
    denoiser = wrap(make("Tokens"))
    assert denoiser.resolve("mix").shape == (4096, 4)
    assert denoiser.features(image(), "mix").shape == (3, 16 * 24, 4)
    with pytest.raises(LayerError, match="no axis for images"):
        denoiser.features(image(), "position")
