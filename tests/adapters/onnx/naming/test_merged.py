"""Merged and turned operators: what the names that are left of them lead to."""

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.errors import LayerError
from ctinv.adapters.onnx.graph.layout import kept_last, layouts
from ctinv.adapters.onnx.graph.trace import Trace
from onnx import helper
from torch import nn

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


class Late(nn.Module):
    """Its ``conv1`` is the second convolution that runs."""

    def __init__(self):
        super().__init__()
        self.intro, self.conv1, self.end = (nn.Conv2d(i, o, 1) for i, o in ((1, 3), (3, 5), (5, 1)))

    def forward(self, x):
        return x - self.end(torch.tanh(self.conv1(torch.tanh(self.intro(x)))))


def test_a_count_is_no_name_where_weights_bear_that_name(exported, open_onnx, tmp_path):
    """Optimisers leave out what the newer exporter recorded of modules."""
    model = onnx.load(exported(Late().eval(), "late", "dynamo"))
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, tmp_path / "m.onnx")
    denoiser = open_onnx(tmp_path / "m.onnx")
    with pytest.raises(LayerError, match="weights of 'conv1' are in the file, but not what it returns"):
        denoiser.features(image(), "conv1")
    assert denoiser.resolve("conv2").shape[0] == 5  # nothing is called so: it is counted


LAST = {"ReorderOutput": False, "NhwcMaxPool": True}


@pytest.mark.parametrize("op", LAST)
def test_what_an_optimiser_turned_is_turned_back_and_what_it_took_in_is_not(op):
    turned = LAST[op]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1])
        if turned
        else helper.make_node(op, ["x"], ["t"], domain="com.microsoft.nchwc", channels_last=1),
        helper.make_node("Relu", ["t"], ["r"]),
        helper.make_node(op, ["r"], ["m"], domain="com.microsoft")
        if turned
        else helper.make_node("LayerNormalization", ["r", "w"], ["m"]),
        helper.make_node("Transpose", ["m"], ["y"], perm=[0, 3, 1, 2]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ["n", 4, "h", "w"])], [value("y", 1, None)], [constant("w", np.ones(4))]
    )
    trace = Trace(helper.make_model(graph), "x")
    known = layouts(trace, "NCHW")
    assert known["r"] == "NHWC"
    assert ("r" in kept_last(trace, known)) == (not turned)
