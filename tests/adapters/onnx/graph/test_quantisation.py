"""Element types: halves, doubles, quantised layers."""

import numpy as np
import pytest
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import (
    LayerError,
    ModelError,
)
from onnx import TensorProto, helper

from ..by_hand import constant, image


@pytest.mark.parametrize(("kind", "atol"), [(TensorProto.FLOAT, 1e-6), (TensorProto.FLOAT16, 2e-2)])
def test_O17_any_float_type_takes_and_gives_float32(conv_graph, open_onnx, kind, atol):
    denoiser, reference = open_onnx(conv_graph(kind=kind), verify=True), open_onnx(conv_graph())
    x = image()
    for name in ("c1", "r", "c2", OUTPUT):
        z = denoiser.features(x, name)
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, reference.features(x, name), atol=atol)


def test_O17_double(conv_graph, open_onnx):
    def change(model):
        """The runtime has no double convolution."""
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.initializer.append(constant("gain", 1 / 3, np.float64))
        model.graph.node.append(helper.make_node("Mul", ["x", "gain"], ["a"], name="gained"))
        model.graph.node.append(helper.make_node("Sin", ["a"], ["y"]))

    denoiser = open_onnx(conv_graph(kind=TensorProto.DOUBLE, change=change))
    z = denoiser.features(image(), "gained")
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, image() / 3, rtol=1e-6)
    np.testing.assert_allclose(denoiser.denoise(image()), np.sin(image() / 3), rtol=1e-5)
    with pytest.raises(ModelError, match="Conv"):
        open_onnx(conv_graph(kind=TensorProto.DOUBLE))


def _quantised(toy, path, form):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"x": image(1, 32, 32, seed)} for seed in range(4)]

        def get_next(self):
            return self.left.pop() if self.left else None

    import logging

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(toy.path),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(level)
    return path


@pytest.fixture(scope="module")
def quantised(onnx_toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    made = {}

    def get(exporter, form):
        if (exporter, form) not in made:
            path = folder / f"{exporter}_{form}.onnx"
            made[exporter, form] = _quantised(onnx_toy("plain", exporter), path, form)
        return made[exporter, form]

    return get


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_O18_quantised_layers_are_what_their_names_say(onnx_toy, open_onnx, quantised, exporter, form):
    toy = onnx_toy("plain", exporter)
    denoiser = open_onnx(quantised(exporter, form))
    x = image(2, 32, 32)
    reference = toy.reference(x)
    compared = set()
    for layer in denoiser.layers:
        if not layer.tappable:
            with pytest.raises(LayerError, match="quantisation"):
                denoiser.features(x, layer.name)
            continue
        z = denoiser.features(x, layer.name)
        assert z.dtype == np.float32
        assert len(np.unique(z)) <= 256, "dequantised: one of 256 values"
        if layer.name in reference:
            expected = reference[layer.name][0]
            assert np.abs(z - expected).max() < 0.08 * np.abs(expected).max(), layer.name
            compared.add(layer.name)
    if exporter == "legacy":
        assert compared == ({"relu2", "relu4", "conv5"} if form == "qdq" else {"conv5"})
        assert {layer.name for layer in denoiser.layers if not layer.tappable} == {"conv1", "conv3"}


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_O18_an_absorbed_activation_is_read_after_it(onnx_toy, open_onnx, quantised, form):
    denoiser = open_onnx(quantised("legacy", form))
    x = image(2, 32, 32)
    name = "relu2" if form == "qdq" else "conv1+relu"
    expected = onnx_toy("plain", "legacy").reference(x)["relu2"][0]
    forms = [name, "/relu2/Relu_output_0"] if form == "qdq" else [name, "/conv1/Conv_quant"]
    for alias in forms:
        z = denoiser.features(x, alias)
        assert z.min() == 0
        assert np.abs(z - expected).max() < 0.05 * expected.max()
    assert "absorbed" in denoiser.resolve(name).note
    with pytest.raises(LayerError, match=r"'conv1'.*absorbed") as caught:
        denoiser.features(x, "conv1")
    assert caught.value.matches == (name,)


def test_O18_integers_of_no_known_scale_are_refused(conv_graph, open_onnx):
    nodes = [helper.make_node("Cast", ["y"], ["i"], name="ints", to=TensorProto.INT8)]
    denoiser = open_onnx(conv_graph(extra_nodes=nodes))
    assert "ints" not in {layer.name for layer in denoiser.layers}
    with pytest.raises(LayerError, match="int8 values"):
        denoiser.features(image(), "ints")
