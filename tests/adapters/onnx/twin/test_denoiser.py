"""The PyTorch twin of an ONNX layer: bit-equal to the module it came from, or absent."""

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters, zoo
from ctinv.adapters.errors import LayerError
from ctinv.adapters.onnx.twin.ops import BUILDERS
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
X = RNG.normal(0, 300, (2, 1, 24, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    return {
        (name, exporter): zoo.export(name, folder / f"{name}-{exporter}.onnx", exporter=exporter)
        for name in ("chen", "yang")
        for exporter in ("dynamo", "torchscript")
    }


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize(
    ("name", "layer"), [("chen", "conv1"), ("chen", "conv5"), ("yang", "relu6"), ("yang", "conv13")]
)
def test_twins_compute_the_numbers_of_the_module(exported, name, exporter, layer):
    denoiser = adapters.load(exported[name, exporter])
    twin, inner = denoiser.twin(layer)
    assert twin.differentiable
    np.testing.assert_array_equal(twin.features(X, inner), zoo.load(name).features(X, layer))


def test_twins_have_gradients(exported):
    twin, inner = adapters.load(exported["yang", "dynamo"]).twin("conv7")
    x = torch.from_numpy(X).requires_grad_()
    twin.features(x, inner, grad=True).square().sum().backward()
    assert x.grad.abs().sum() > 0


def graph(tmp_path, nodes):
    """A file of these nodes from ``x`` to ``y``, and of an image that it returns."""
    weights = {
        "w": RNG.normal(size=(3, 1, 3, 3)),
        "w2": RNG.normal(size=(3, 1, 3, 3)),
        "b": RNG.normal(size=3),
        "slope": RNG.uniform(size=(3, 1, 1)),
        "scale": RNG.uniform(0.5, 2, size=3),
        "half": np.array(0.5),
        "low": np.array(-0.2),
        "high": np.array(0.3),
        "twice": np.array([1, 1, 2, 2]),
    }
    model = helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Mul", ["x", "half"], ["image"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "g.onnx")
    return adapters.load(tmp_path / "g.onnx", intensity="unit:-1000:1000", output="image")


node = helper.make_node
CONV = node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1])
PLAIN = {
    "strided": [node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])],
    "dilated": [node("Conv", ["x", "w", "b"], ["y"], dilations=[2, 2], pads=[2, 2, 2, 2])],
    "relu": [CONV, node("Relu", ["c"], ["y"])],
    "leaky": [CONV, node("LeakyRelu", ["c"], ["y"], alpha=0.3)],
    "prelu": [CONV, node("PRelu", ["c", "slope"], ["y"])],
    "norm": [CONV, node("BatchNormalization", ["c", "scale", "b", "b", "scale"], ["y"], epsilon=0.1)],
    "clip": [CONV, node("Clip", ["c", "low", "high"], ["y"])],
    "clip above": [CONV, node("Clip", ["c", "", "high"], ["y"])],
    "arithmetic": [
        CONV,
        node("Mul", ["c", "half"], ["m"]),
        node("Sub", ["m", "c"], ["s"]),
        node("Div", ["s", "high"], ["d"]),
        node("Neg", ["d"], ["n"]),
        node("Sum", ["n", "c", "m"], ["y"]),
    ],
    "squashed": [
        CONV,
        node("Tanh", ["c"], ["t"]),
        node("Sigmoid", ["t"], ["i"]),
        node("Identity", ["i"], ["y"]),
    ],
}


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_operator_agrees_with_the_runtime(tmp_path, name):
    denoiser = graph(tmp_path, PLAIN[name])
    twin, inner = denoiser.twin("y")
    expected = denoiser.features(X, "y")
    assert np.abs(twin.features(X, inner) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_concatenation_and_constants(tmp_path):
    value = numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32))
    nodes = [
        CONV,
        node("Conv", ["x", "w2"], ["e"], pads=[1, 1, 1, 1]),
        node("Constant", [], ["two"], value=value),
        node("Mul", ["e", "two"], ["f"]),
        node("Concat", ["c", "f"], ["y"], axis=1),
    ]
    denoiser = graph(tmp_path, nodes)
    twin, inner = denoiser.twin("y")
    expected = denoiser.features(X, "y")
    assert np.abs(twin.features(X, inner) - expected).max() <= 1e-5 * np.abs(expected).max()


OTHER = {
    "operator": [CONV, node("GlobalLpPool", ["c"], ["y"])],
    "dropout mask": [CONV, node("Dropout", ["c"], ["y", "mask"])],
    "antialias": [CONV, node("Resize", ["c", "", "twice"], ["y"], mode="linear", antialias=1)],
    "mean": [CONV, node("LayerNormalization", ["c", "half"], ["y", "mean"])],
    "maxima": [CONV, node("MaxPool", ["c"], ["y", "places"], kernel_shape=[2, 2])],
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_not_rebuilt_has_no_twin(tmp_path, name):
    denoiser = graph(tmp_path, OTHER[name])
    denoiser.features(X, "y")
    assert denoiser.twin("y") is None


def test_layers_that_are_not_finite_have_no_twin(tmp_path):
    denoiser = graph(tmp_path, [CONV, node("Log", ["c"], ["y"])])
    assert np.isnan(denoiser.features(X, "y")).any()
    assert denoiser.twin("y") is None


def test_a_twin_that_disagrees_is_none(tmp_path, monkeypatch):
    denoiser = graph(tmp_path, PLAIN["relu"])
    monkeypatch.setitem(BUILDERS, "Relu", lambda _: lambda x: x)
    assert denoiser.twin("y") is None


def test_the_output_has_a_twin_that_returns_the_image(exported, tmp_path):
    twin, layer = adapters.load(exported["chen", "dynamo"]).twin("@output")
    np.testing.assert_array_equal(twin.denoise(X), zoo.load("chen").denoise(X))
    assert layer == "@output"
    denoiser = graph(tmp_path, [CONV])
    denoiser.output = "residual"
    twin, _ = denoiser.twin("@output")
    np.testing.assert_allclose(twin.denoise(X), denoiser.denoise(X), atol=1e-3)
    x = torch.from_numpy(X).requires_grad_()
    twin.features(x, "@output", grad=True).sum().backward()
    assert x.grad.abs().sum() > 0


def test_twins_mirror_and_crop_as_the_file_does(tmp_path):
    pool = [
        node("MaxPool", ["x"], ["y"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Resize", ["y", "", "four"], ["image"], mode="nearest"),
    ]
    model = helper.make_model(
        helper.make_graph(
            pool,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "four")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "pool.onnx")
    denoiser = adapters.load(tmp_path / "pool.onnx", intensity="hu", output="image")
    twin, inner = denoiser.twin("y")
    x = RNG.normal(0, 300, (1, 1, 30, 22)).astype(np.float32)
    assert denoiser.features(x, "y").shape == (1, 1, 8, 6)
    np.testing.assert_array_equal(twin.features(x, inner), denoiser.features(x, "y"))


@pytest.mark.parametrize("shape", [["N", 1, "H", "W"], ["N", 1, 1, 1]])
def test_twins_are_fed_the_same_values(tmp_path, shape):
    nodes = [node("Mul", ["x", "sigma"], ["m"]), node("Concat", ["m", "m"], ["y"], axis=1)]
    model = helper.make_model(
        helper.make_graph(
            [*nodes, node("Identity", ["m"], ["image"])],
            "g",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"]),
                helper.make_tensor_value_info("sigma", TensorProto.FLOAT, shape),
            ],
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "fed.onnx")
    options = {"intensity": "hu", "output": "image"}
    twins = [
        adapters.load(tmp_path / "fed.onnx", feed={"sigma": s}, **options).twin("y")[0] for s in (0.5, 2.0)
    ]
    np.testing.assert_array_equal(twins[0].features(X, "phi"), np.repeat(X, 2, 1) * 0.5)
    np.testing.assert_array_equal(twins[1].features(X, "phi"), np.repeat(X, 2, 1) * 2)
    assert twins[0].fingerprint != twins[1].fingerprint


@pytest.mark.parametrize(
    "file",
    [
        "AndresLL_dncnn25_compatible.onnx",
        pytest.param("raja-shetty_covid_denoiser.onnx", marks=pytest.mark.slow),
    ],
)
def test_published_files_have_twins(shared_data, file):
    denoiser = adapters.load(
        shared_data / "models" / file, intensity="unit:-1024:3072", output="image", threads=1
    )
    layer = [layer for layer in denoiser.layers if layer.op == "Conv"][6]
    twin, inner = denoiser.twin(layer.name)
    x = RNG.normal(0, 300, (2, 1, 40, 56)).astype(np.float32)
    expected = denoiser.features(x, layer.name)
    assert np.abs(twin.features(x, inner) - expected).max() < 1e-5 * np.abs(expected).max()


def test_modules_have_no_twin_and_names_are_checked(exported):
    assert zoo.load("chen").twin("conv1") is None
    for denoiser in (zoo.load("chen"), adapters.load(exported["chen", "dynamo"])):
        with pytest.raises(LayerError, match="conv99"):
            denoiser.twin("conv99")
