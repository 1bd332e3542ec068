"""What tests of ONNX graphs share: images, constants, and the law that every layer must obey."""

import numpy as np
import pytest
from ctinv.adapters.errors import (
    LayerError,
)
from onnx import numpy_helper


def image(n=2, h=24, w=20, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 1, h, w)).astype(np.float32)


def constant(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def check_law(denoiser, reference, x, atol=1e-5):
    """Every listed layer equals the reference under one of its names, or says why it is not there."""
    compared = 0
    for layer in denoiser.layers:
        if not layer.tappable:
            assert layer.note
            with pytest.raises(LayerError) as caught:
                denoiser.features(x, layer.name)
            assert layer.name in str(caught.value)
            assert caught.value.matches
            continue
        tensor = denoiser._places[layer.name].tensor
        z = denoiser.features(x, layer.name)
        assert z.dtype == np.float32
        assert z.shape[1:] == layer.shape or x.shape[-2:] != denoiser.probe_size
        np.testing.assert_allclose(z, reference[tensor], rtol=0, atol=atol, err_msg=layer.name)
        compared += 1
    return compared
