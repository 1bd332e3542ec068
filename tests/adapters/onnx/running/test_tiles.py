"""Images larger than a fixed size, in tiles."""

import numpy as np
import pytest
import torch
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import (
    ImageError,
    ModelError,
    UnsupportedModelError,
)
from onnx import helper

from ..by_hand import constant, image


def test_O13_constant_maps_are_not_lifted(conv_graph, open_onnx):
    """An additive map of the fixed size would broadcast at no other, or worse, be cut."""
    ramp = np.linspace(0, 1, 32 * 32).reshape(1, 1, 32, 32)
    nodes = [helper.make_node("Add", ["y", "map"], ["z"], name="bias_map")]
    denoiser = open_onnx(
        conv_graph((1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("map", ramp)])
    )
    assert denoiser.denoise(image(2, 32, 32)).shape == (2, 1, 32, 32)
    with pytest.raises(ImageError, match="32x32 pixels only, not 8x8"):
        denoiser.denoise(image(1, 8, 8))
    with pytest.raises(UnsupportedModelError, match="tiles disagree"):
        denoiser.denoise(image(1, 64, 64))


def test_O13_images_larger_than_a_fixed_size_are_tiled_exactly(conv_graph, open_onnx):
    nodes = [helper.make_node("Reshape", ["y", "s"], ["z"], name="fix")]
    path = conv_graph(
        (1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("s", [1, 1, 32, 32], np.int64)]
    )
    tiled, free = open_onnx(path), open_onnx(conv_graph())
    for size in ((2, 32, 32), (1, 75, 50), (3, 33, 90)):
        x = image(*size)
        for name in ("c1", "r", "c2", OUTPUT):
            np.testing.assert_allclose(tiled.features(x, name), free.features(x, name), atol=1e-6)
    assert sum("'fix' may depend" in notice and "tiles" in notice for notice in tiled.notices) == 1
    with pytest.raises(ImageError, match="32x32 pixels only, not 16x16"):
        tiled.denoise(image(1, 16, 16))
    with pytest.raises(ModelError, match="32x32 pixels, not 16x16"):
        tiled._run(image(1, 16, 16), ["c1"], False)


def test_O13_tiles_follow_strides(export_onnx, open_onnx, tmp_path):
    from torch import nn

    class Strided(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.size = size
            self.down = nn.Conv2d(1, 4, 4, stride=4)
            self.mid = nn.Conv2d(4, 4, 3, padding=1)
            self.up = nn.ConvTranspose2d(4, 1, 4, stride=4)

        def forward(self, x):
            y = self.up(torch.relu(self.mid(self.down(x))))
            return y.reshape(1, 1, self.size, self.size) if self.size else y

    net = Strided(48).eval()
    fixed = open_onnx(export_onnx(net, tmp_path / "fixed.onnx", "legacy", (1, 1, 48, 48), free=False))
    net.size = 0
    free = open_onnx(export_onnx(net, tmp_path / "free.onnx", "legacy", (1, 1, 48, 48)))
    x = image(2, 100, 64)
    for name in ("down", "mid", "up", OUTPUT):
        np.testing.assert_allclose(fixed.features(x, name), free.features(x, name), atol=1e-5)
    assert fixed.denoise(image(1, 50, 49)).shape == (1, 1, 50, 49), "mirrored up to the next stride"


def test_O13_global_networks_are_not_tiled(conv_graph, open_onnx):
    nodes = [
        helper.make_node("GlobalAveragePool", ["y"], ["g"]),
        helper.make_node("Sub", ["y", "g"], ["d"]),
        helper.make_node("Reshape", ["d", "s"], ["z"]),
    ]
    path = conv_graph(
        (1, 1, 32, 32), extra_nodes=nodes, outputs="z", extra_stored=[constant("s", [1, 1, 32, 32], np.int64)]
    )
    with pytest.raises(UnsupportedModelError, match="whole image"):
        open_onnx(path).denoise(image(1, 64, 64))
