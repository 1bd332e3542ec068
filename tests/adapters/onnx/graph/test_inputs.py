"""Graphs of several inputs."""

import numpy as np
import pytest
from ctinv.adapters.errors import (
    ModelError,
    UnsupportedModelError,
)
from onnx import TensorProto, helper, numpy_helper

from ..by_hand import constant, image


def _sigma_net(conv_graph, **changes):
    sigma = helper.make_tensor_value_info("sigma", TensorProto.FLOAT, changes.pop("sigma", ["n", 1, 1, 1]))
    nodes = [helper.make_node("Mul", ["y", "sigma"], ["z"])]
    return conv_graph(extra_inputs=[sigma], extra_nodes=nodes, outputs="z", **changes)


@pytest.mark.parametrize("shape", [["n", 1, 1, 1], [1], [], [1, 1, 1, 1], ["n", 1, "h", "w"]])
def test_O19_other_inputs_are_fed(conv_graph, open_onnx, shape):
    path = _sigma_net(conv_graph, sigma=shape)
    x = image(3)
    half = open_onnx(path, feed={"sigma": 0.5})
    full = open_onnx(path, feed={"sigma": np.ones([1] * len(shape))})
    np.testing.assert_allclose(half.denoise(x) * 2, full.denoise(x), atol=1e-6)
    np.testing.assert_array_equal(half.features(x, "c2"), full.features(x, "c2"))
    assert half.fingerprint != full.fingerprint


def test_O19_whole_numbers_are_fed_to_inputs_that_take_them(conv_graph, open_onnx):
    """A timestep comes from the command line as 10.0; what is not whole is not cut off."""
    step = helper.make_tensor_value_info("t", TensorProto.INT64, ["n"])
    nodes = [
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "column"], ["g"]),
        helper.make_node("Mul", ["y", "g"], ["z"]),
    ]
    column = numpy_helper.from_array(np.array([-1, 1, 1, 1]), "column")
    options = {"extra_inputs": [step], "extra_nodes": nodes, "extra_stored": [column], "outputs": "z"}
    path = conv_graph(**options)
    ten, one = open_onnx(path, feed={"t": 10.0}), open_onnx(path, feed={"t": 1})
    np.testing.assert_allclose(ten.denoise(image(2)), 10 * one.denoise(image(2)), rtol=1e-5)
    with pytest.raises(ModelError, match=r"input t \[n\] cannot be fed 10.5"):
        open_onnx(path, feed={"t": 10.5})


def test_O19_missing_and_wrong_feeds_are_listed(conv_graph, open_onnx):
    path = _sigma_net(conv_graph, sigma=[1])
    with pytest.raises(ModelError, match=r"feed sigma=0.05.*sigma \[1\]"):
        open_onnx(path)
    with pytest.raises(ModelError, match=r"'depth'|depth.*sigma \[1\]"):
        open_onnx(path, feed={"sigma": 1.0, "depth": 2.0})
    for bad in ("much", [1.0, 2.0], np.ones((1, 2))):
        with pytest.raises(ModelError, match="cannot be fed"):
            open_onnx(path, feed={"sigma": bad})
    with pytest.raises(ModelError, match=r"several inputs.*x.*sigma"):
        open_onnx(_sigma_net(conv_graph))
    with pytest.raises(ModelError, match=r"no input is called 'z'.*x"):
        open_onnx(path, input_name="z")


def test_O19_inputs_with_defaults_and_old_graphs_that_list_weights(conv_graph, open_onnx):
    def list_weights(model):
        for tensor in model.graph.initializer:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            model.graph.input.append(value)

    old = open_onnx(conv_graph(ir=3, opset=8, change=list_weights))
    np.testing.assert_allclose(old.denoise(image()), open_onnx(conv_graph()).denoise(image()), atol=1e-6)
    path = _sigma_net(conv_graph, sigma=[1], extra_stored=[constant("sigma", [0.25])])
    quarter, half = open_onnx(path), open_onnx(path, feed={"sigma": 0.5})
    np.testing.assert_allclose(2 * quarter.denoise(image()), half.denoise(image()), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "kind"), [((1, 24, 20), 1), (("n", 17, 24, 20), 1), (("n", 1, 24, 20), TensorProto.UINT8)]
)
def test_O19_inputs_that_are_no_grey_images(conv_graph, open_onnx, shape, kind):
    def change(model):
        del model.graph.input[:]
        model.graph.input.append(helper.make_tensor_value_info("x", kind, shape))

    with pytest.raises(UnsupportedModelError, match="x"):
        open_onnx(conv_graph(change=change))


def _channelled(conv_graph, channels, shape=None):
    """A graph that returns the middle channel of its image, and a tenth of the last."""
    weights = np.zeros((1, channels, 1, 1), np.float32)
    weights[0, channels // 2] = 1.0
    weights[0, -1] += 0.1

    def change(model):
        del model.graph.input[:], model.graph.node[:], model.graph.initializer[:]
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or ["n", channels, "h", "w"])
        model.graph.input.append(value)
        model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
        model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["y"], name="c"))

    return conv_graph(change=change)


@pytest.mark.parametrize("channels", [3, 5, 7, 9])
def test_neighbouring_slices_are_given_in_any_number(conv_graph, open_onnx, channels):
    denoiser, x = open_onnx(_channelled(conv_graph, channels)), image(4)
    last = [min(place + channels // 2, 3) for place in range(4)]
    np.testing.assert_allclose(denoiser.denoise(x), x + 0.1 * x[last], atol=1e-4)
    assert any(f"takes {channels} slices and returns one" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("unit", ["hu", "unit:-1024:3072"])
def test_a_noise_level_may_be_a_channel_of_the_image(conv_graph, open_onnx, unit):
    path, x = _channelled(conv_graph, 2), image(3)
    low, high = (
        open_onnx(path, feed={"sigma": level}, output="residual", intensity=unit) for level in (0.1, 0.5)
    )
    scale = low.intensity.scale
    np.testing.assert_allclose(low.denoise(x) - high.denoise(x), 0.4 * 1.1 * scale, rtol=1e-3)
    np.testing.assert_allclose(low.features(x, "c"), 1.1 * 0.1 * np.ones_like(x), rtol=1e-5)
    assert low.fingerprint != high.fingerprint
    assert low.channels == 1
    twin, inner = low.twin("c")
    np.testing.assert_allclose(twin.features(x, inner), low.features(x, "c"), rtol=1e-5)
    assert any("sigma is given as a further channel" in notice for notice in low.notices)
    assert any("feed sigma=VALUE" in notice for notice in open_onnx(path).notices)


def test_a_channel_is_bound_in_files_of_one_size_and_for_tensors(conv_graph, open_onnx):
    torch = pytest.importorskip("torch")
    path, x = _channelled(conv_graph, 2, [1, 2, 64, 64]), np.zeros((2, 1, 64, 64), np.float32)
    denoiser = open_onnx(path, feed={"sigma": 0.5}, output="residual")
    np.testing.assert_allclose(denoiser.denoise(x), -0.55, rtol=1e-5)
    assert torch.allclose(denoiser.denoise(torch.tensor(x)), torch.tensor(-0.55))


def test_what_is_no_number_or_channel_is_still_refused(conv_graph, open_onnx):
    path = _channelled(conv_graph, 2)
    for feed in ({"sigma": "a"}, {"sigma": 0.1, "t": 3}, {"sigma": True}):
        with pytest.raises(ModelError, match="nothing can be fed to sigma"):
            open_onnx(path, feed=feed)
