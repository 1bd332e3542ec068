"""The part of a graph that a layer needs, and no more."""

import numpy as np
import pytest
from ctinv.adapters.base import OUTPUT
from ctinv.adapters.errors import (
    ModelError,
)
from ctinv.adapters.onnx.graph import prune as _onnx_prune
from ctinv.adapters.onnx.running import runner as _onnx_runner
from onnx import TensorProto, helper

from ..by_hand import constant, image


def test_O09_an_early_layer_needs_only_the_nodes_before_it(onnx_toy, open_onnx, monkeypatch):
    denoiser = open_onnx(onnx_toy("plain", "dynamo").path)
    models = []

    def spy(trace, wanted):
        models.append(_onnx_prune.prefix(trace, wanted))
        return models[-1]

    monkeypatch.setattr(_onnx_runner, "prefix", spy)
    expected = {"conv1": (1, 2), "relu2": (2, 2), "conv3": (3, 4), "relu4": (4, 4), "conv5": (5, 6)}
    for name in expected:
        denoiser._run(image(), [name], False)
    sizes = [(len(model.graph.node), len(model.graph.initializer)) for model in models]
    assert sizes[: len(expected)] == list(expected.values())[: len(sizes)]
    assert any("name_scopes" in entry.key for entry in models[0].graph.node[0].metadata_props)
    made = len(models)
    denoiser._run(image(), ["conv1"], False)
    assert len(models) == made, "sessions are kept"


def test_O09_a_tail_that_cannot_run_does_not_matter_to_early_layers(conv_graph, open_onnx):
    tail = helper.make_node("Reshape", ["y", "bad"], ["z"])
    path = conv_graph(extra_nodes=[tail], outputs="z", extra_stored=[constant("bad", [1, 1, 7, 7], np.int64)])
    denoiser = open_onnx(path)
    assert denoiser._run(image(), ["c1"], False)["c1"].shape == (2, 3, 24, 20)
    with pytest.raises(ModelError, match=r"model.onnx"):
        denoiser.denoise(image())


def test_O10_taps_are_declared_with_their_own_type(conv_graph, open_onnx):
    denoiser = open_onnx(conv_graph(kind=TensorProto.FLOAT16))
    model = _onnx_prune.prefix(denoiser._trace, [denoiser._places["r"]])
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert denoiser.features(image(), "r").dtype == np.float32


def test_O11_a_layer_that_is_an_output_already(conv_graph, open_onnx, capture):
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 3, None, None])
    path = conv_graph(extra_outputs=[value])
    denoiser = open_onnx(path)
    x = image()
    found = denoiser.features(x, ["b", "y", "r", "c2", OUTPUT])
    reference = capture(path, {"x": x})
    np.testing.assert_allclose(found["b"], reference["b"], atol=1e-5)
    np.testing.assert_array_equal(found["b"], found["r"])
    np.testing.assert_array_equal(found["y"], found[OUTPUT])
    twice = [denoiser._places[name] for name in ("r", "c2", OUTPUT, "r")]
    assert [value.name for value in _onnx_prune.prefix(denoiser._trace, twice).graph.output] == ["b", "y"]
