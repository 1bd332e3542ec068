"""The ONNX denoiser as a user meets it."""

import numpy as np
import onnx
import pytest
import torch
from ctinv.adapters.errors import (
    CtinvError,
    ImageError,
    IntensityError,
    ModelError,
    UnsupportedModelError,
)
from onnx import TensorProto, helper, numpy_helper

from .by_hand import image


def test_O21_a_corrupted_bias_shows_from_its_layer_on(onnx_toy, open_onnx, tmp_path):
    toy = onnx_toy("plain", "legacy")
    model = onnx.load(str(toy.path))
    for tensor in model.graph.initializer:
        if tensor.name == "conv3.bias":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))
    onnx.save_model(model, str(tmp_path / "bad.onnx"))
    good, bad = open_onnx(toy.path), open_onnx(tmp_path / "bad.onnx")
    apart = {
        layer.name: np.abs(good.features(image(), layer.name) - bad.features(image(), layer.name)).max()
        for layer in good.layers
    }
    assert [name for name, value in apart.items() if value > 1e-4] == ["conv3", "relu4", "conv5"]
    assert apart["conv3"] == pytest.approx(1, abs=1e-5)


def test_O25_gradients_are_refused_early(onnx_toy, open_onnx):

    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    assert not denoiser.differentiable
    with pytest.raises(UnsupportedModelError, match="cannot be differentiated"):
        denoiser.features(torch.zeros(1, 1, 32, 32), "conv1", grad=True)


@pytest.mark.parametrize("key", ["image", "residual"])
def test_metadata_gives_units_and_output(conv_graph, open_onnx, key):
    path = conv_graph(metadata={"ctinv.intensity": "unit:-1000:1000", "ctinv.output": key})
    denoiser = open_onnx(path, intensity=None, output=None)
    assert (denoiser.intensity.spec, denoiser.output) == ("unit:-1000:1000", key)
    assert open_onnx(path).intensity.spec == "hu"
    given = "residual" if key == "image" else "image"
    assert open_onnx(path, output=given).output == given


def test_metadata_that_is_wrong_is_refused(conv_graph, open_onnx):
    with pytest.raises(IntensityError, match="furlongs"):
        open_onnx(conv_graph(metadata={"ctinv.intensity": "furlongs"}), intensity=None)
    with pytest.raises(ModelError, match=r"ctinv\.output.*'noise'"):
        open_onnx(conv_graph(metadata={"ctinv.output": "noise"}), output=None)


def _two_outputs(conv_graph, first="level", channels=1):
    """A file that returns what precedes the image as well, and first."""

    def change(model):
        model.graph.node.append(helper.make_node("Sigmoid", ["a" if channels == 3 else "x"], [first]))
        value = helper.make_tensor_value_info(first, TensorProto.FLOAT, ["n", channels, None, None])
        model.graph.output.insert(0, value)

    return conv_graph(change=change)


def _returning(conv_graph, *outputs):
    """A file with further outputs before the image, each a node from ``x`` and its channels."""

    def change(model):
        for place, (node, channels) in enumerate(outputs):
            model.graph.node.append(node)
            value = helper.make_tensor_value_info(
                node.output[0], TensorProto.FLOAT, ["n", channels, None, None]
            )
            model.graph.output.insert(place, value)

    return conv_graph(change=change)


LEVEL = helper.make_node("Sigmoid", ["x"], ["level"])
COPY = helper.make_node("AveragePool", ["x"], ["copy"], kernel_shape=[1, 1])
BROADER = helper.make_node("LeakyRelu", ["x"], ["broader"], alpha=0.9)
WEAKER = helper.make_node("LeakyRelu", ["x"], ["weaker"], alpha=0.6)
HALF = helper.make_node("MaxPool", ["x"], ["half"], kernel_shape=[2, 2], strides=[2, 2])


@pytest.mark.parametrize("intensity", ["unit:-160:240", "hu", None])
def test_of_several_outputs_the_one_that_returns_constant_images_is_taken(conv_graph, open_onnx, intensity):
    path = _returning(conv_graph, (LEVEL, 1), (COPY, 1))
    denoiser = open_onnx(path, intensity=intensity, output=None)
    assert any("'copy' is taken, as constant images" in notice for notice in denoiser.notices)
    x = image()
    if intensity:
        np.testing.assert_allclose(denoiser.denoise(x), x, atol=1e-3)
    named = open_onnx(
        _returning(conv_graph, (LEVEL, 1), (COPY, 1)), intensity=intensity, output_tensor="copy"
    )
    assert denoiser.fingerprint == named.fingerprint


@pytest.mark.parametrize("handed", ["x", "through"])
def test_the_input_handed_through_is_not_taken_for_the_image(conv_graph, open_onnx, handed):
    def change(model):
        if handed != "x":
            model.graph.node.append(helper.make_node("Identity", ["x"], [handed]))
        model.graph.output.insert(0, helper.make_tensor_value_info(handed, TensorProto.FLOAT, None))

    x = image()
    denoiser = open_onnx(conv_graph(change=change))
    np.testing.assert_array_equal(denoiser.denoise(x), open_onnx(conv_graph()).denoise(x))


def test_of_outputs_of_several_sizes_and_channels_the_one_like_the_image_is_taken(conv_graph, open_onnx):
    denoiser = open_onnx(_returning(conv_graph, (HALF, 1)))
    assert any("'y' is taken, as it alone has the image's size" in notice for notice in denoiser.notices)
    assert denoiser.denoise(image()).shape == image().shape
    denoiser = open_onnx(_two_outputs(conv_graph, channels=3))
    assert any("'y' is taken, as it alone has" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("output", ["image", "residual", None])
def test_outputs_that_cannot_be_told_apart_must_be_chosen(conv_graph, open_onnx, output):
    path = _returning(conv_graph, (COPY, 1), (BROADER, 1))
    with pytest.raises(UnsupportedModelError, match="copy, broader, y; say which it is with output_tensor='"):
        open_onnx(path, output=output)
    assert open_onnx(path, output=output, output_tensor="broader").denoise(image()).shape == image().shape


def test_of_several_like_the_image_one_may_be_much_nearer(conv_graph, open_onnx):
    path = _returning(conv_graph, (WEAKER, 1), (COPY, 1))
    assert any("'copy' is taken, as constant images" in notice for notice in open_onnx(path).notices)


def test_equal_outputs_are_one(conv_graph, open_onnx):
    again = helper.make_node("Identity", ["copy"], ["again"])
    denoiser = open_onnx(_returning(conv_graph, (COPY, 1), (again, 1)))
    assert any("'copy' is taken, as others like it" in notice for notice in denoiser.notices)


@pytest.mark.parametrize("asked", ["y", "[1]", "[-1]", '["y"]', "['y']"])
def test_the_output_can_be_chosen(conv_graph, open_onnx, asked):
    plain = open_onnx(conv_graph())
    chosen = open_onnx(_two_outputs(conv_graph), output_tensor=asked)
    np.testing.assert_allclose(chosen.denoise(image()), plain.denoise(image()), atol=1e-6)
    assert not any("several" in notice for notice in chosen.notices)
    assert chosen.fingerprint != open_onnx(_two_outputs(conv_graph), output_tensor="level").fingerprint


def test_outputs_that_cannot_be_chosen_are_refused_with_those_that_can(conv_graph, open_onnx):
    for asked in ("z", "[2]", "a"):
        with pytest.raises(ModelError, match=r"\[0\] level, \[1\] y"):
            open_onnx(_two_outputs(conv_graph), output_tensor=asked)
    size = helper.make_tensor_value_info("s", TensorProto.INT64, [4])
    nodes = [helper.make_node("Shape", ["x"], ["s"])]
    with pytest.raises(UnsupportedModelError, match=r"'s' is no float image.*outputs that are: y"):
        open_onnx(conv_graph(extra_nodes=nodes, extra_outputs=[size]), output_tensor="s")


def test_torch_and_numpy_give_the_same(onnx_toy, open_onnx):

    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    x = image()
    z = denoiser.features(torch.from_numpy(x).permute(0, 1, 3, 2), "conv3")
    assert isinstance(z, torch.Tensor)
    np.testing.assert_array_equal(
        z.numpy(), denoiser.features(np.ascontiguousarray(x.swapaxes(2, 3)), "conv3")
    )


def test_images_are_checked(onnx_toy, open_onnx):
    denoiser = open_onnx(onnx_toy("plain", "legacy").path)
    for bad in (np.zeros((1, 2, 8, 8), np.float32), np.zeros((8, 8)), [[1.0]]):
        with pytest.raises(ImageError):
            denoiser.features(bad, "conv1")
    assert issubclass(ImageError, CtinvError)
