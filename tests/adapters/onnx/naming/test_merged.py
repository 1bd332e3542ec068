"""Merged operators in files that no exporter of PyTorch made: a node's name alone tells of them."""

import numpy as np
import onnx
import pytest
from ctinv.adapters.errors import LayerError
from onnx import helper

from ..by_hand import constant, image


def test_the_name_of_a_merged_node_leads_to_no_other_layer(tmp_path, open_onnx):
    """Counted, ``conv1`` would be the first convolution that is left: the second one."""
    rng = np.random.default_rng(0)
    merged = helper.make_node(
        "FusedConv", ["x", "w"], ["r"], "conv1", domain="com.microsoft", pads=[1] * 4, activation="Relu"
    )
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [merged, helper.make_node("Conv", ["r", "v"], ["y"], "conv2", pads=[1] * 4)],
        "g",
        [value("x", 1, ["n", 1, "h", "w"])],
        [value("y", 1, ["n", 1, "h", "w"])],
        [constant("w", rng.normal(size=(3, 1, 3, 3))), constant("v", rng.normal(size=(1, 3, 3, 3)))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    denoiser = open_onnx(tmp_path / "m.onnx")
    with pytest.raises(
        LayerError, match=r"'conv1' \(Conv\) cannot be read: relu was merged .* 'r' comes after"
    ):
        denoiser.features(image(), "conv1")
    assert denoiser.features(image(), "r").min() == 0.0
    np.testing.assert_array_equal(denoiser.features(image(), "conv2"), denoiser.denoise(image()))
