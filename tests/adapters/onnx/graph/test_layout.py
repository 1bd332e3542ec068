"""Graphs whose channels come last."""

import numpy as np
import pytest
from ctinv.adapters.errors import (
    ModelError,
    UnsupportedModelError,
)
from onnx import helper

from ..by_hand import constant, image


def _nhwc(conv_graph, shape=("n", "h", "w", 1), transpose=True, **changes):
    def change(model):
        nodes = list(model.graph.node)
        nodes[0].input[0] = "x_nchw"
        nodes[2].output[0] = "y_nchw"
        enter = helper.make_node("Transpose", ["x"], ["x_nchw"], perm=[0, 3, 1, 2], name="in")
        leave = helper.make_node("Transpose", ["y_nchw"], ["y"], perm=[0, 2, 3, 1], name="out")
        scale = helper.make_node("Mul", ["y", "half"], ["z"], name="scale")
        model.graph.initializer.append(constant("half", [0.5]))
        if not transpose:
            n, h, w, _ = shape
            for node, target in ((enter, [n, 1, h, w]), (leave, [n, h, w, 1])):
                model.graph.initializer.append(constant(f"{node.name}_shape", target, np.int64))
                node.CopyFrom(
                    helper.make_node("Reshape", [node.input[0], f"{node.name}_shape"], node.output, node.name)
                )
        del model.graph.node[:], model.graph.input[:], model.graph.output[:]
        model.graph.node.extend([enter, *nodes, leave, scale])
        model.graph.input.append(helper.make_tensor_value_info("x", 1, shape))
        model.graph.output.append(helper.make_tensor_value_info("z", 1, [shape[0], None, None, 1]))

    return conv_graph(change=change, **changes)


@pytest.mark.parametrize(
    ("shape", "transpose"),
    [
        (("n", "h", "w", 1), True),
        ((1, 32, 32, 1), True),
        ((None, None, None, None), True),
        ((1, 32, 32, 1), False),
    ],
)
def test_O20_channels_last_comes_out_channels_first(conv_graph, open_onnx, shape, transpose):
    last, first = open_onnx(_nhwc(conv_graph, shape, transpose)), open_onnx(conv_graph())
    for size in ((1, 32, 32), (3, 24, 20)):
        x = image(*size)
        for name in ("c1", "r", "c2"):
            np.testing.assert_allclose(last.features(x, name), first.features(x, name), atol=1e-6)
        np.testing.assert_array_equal(last.features(x, "in"), x)
        np.testing.assert_allclose(last.features(x, "out"), first.denoise(x), atol=1e-6)
        np.testing.assert_allclose(last.denoise(x), first.denoise(x) / 2, atol=1e-6)
    assert {layer.shape[0] for layer in last.layers} == {1, 3}
    assert any("channels come last" in notice for notice in last.notices)


def test_O20_the_layout_can_be_given(conv_graph, open_onnx):
    path = _nhwc(conv_graph, ("n", "h", "w", "c"))
    assert open_onnx(path, layout="NHWC").fingerprint == open_onnx(path).fingerprint
    with pytest.raises(ModelError):
        open_onnx(path, layout="NCHW").denoise(image())
    with pytest.raises(ModelError, match="NCHW, NHWC or None"):
        open_onnx(path, layout="CHWN")
    with pytest.raises(UnsupportedModelError, match="layout="):
        open_onnx(_nhwc(conv_graph, (1, 32, 32, 1)), layout="NCHW")


def test_O20_keras_tensor_names_work_without_their_port(conv_graph, open_onnx):
    names = ("m/conv2d/BiasAdd", "m/relu/Relu", "m/out/BiasAdd")
    denoiser = open_onnx(
        conv_graph(names=("Conv__1", "", "Conv__9"), tensors=[f"{name}:0" for name in names])
    )
    for name in names:
        assert denoiser.resolve(name) == denoiser.resolve(f"{name}:0")
