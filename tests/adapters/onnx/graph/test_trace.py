"""What a graph holds: branches, functions, nodes of several tensors, operators that cannot run."""

import numpy as np
import pytest
from ctinv.adapters.errors import (
    LayerError,
    ModelError,
    UnsupportedModelError,
)
from onnx import helper

from ..by_hand import constant, image


def _branches():
    def branch(name, op):
        node = helper.make_node(op, ["y"], [f"{name}_out"], name=f"{name}_node")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"{name}_out", 1, None)])

    return [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node(
            "If",
            ["c"],
            ["z"],
            name="choice",
            then_branch=branch("yes", "Neg"),
            else_branch=branch("no", "Abs"),
        ),
    ]


def test_O12_inside_if_is_listed_and_refused_naming_the_node(conv_graph, open_onnx, capture):
    path = conv_graph(extra_nodes=_branches(), extra_stored=[constant("zero", 0.0)], outputs="z")
    denoiser = open_onnx(path)
    x = image(2, *denoiser.probe_size)
    inner = {layer.name: layer for layer in denoiser.layers if not layer.tappable}
    assert set(inner) == {"yes_node", "no_node"}
    for name in ("yes_node", "yes_out", "no_node"):
        with pytest.raises(LayerError, match="inside the If node 'choice'") as caught:
            denoiser.features(x, name)
        assert "choice" in caught.value.matches
    reference = capture(path, {"x": x})
    np.testing.assert_allclose(denoiser.features(x, "choice"), reference["z"], atol=1e-5)
    np.testing.assert_allclose(denoiser.features(x, "r"), reference["b"], atol=1e-5)


def test_O12_functions_are_inlined(conv_graph, open_onnx, capture):
    inner = [helper.make_node("Abs", ["i"], ["t"], name="inner_abs"), helper.make_node("Neg", ["t"], ["o"])]
    function = helper.make_function("mine", "AbsNeg", ["i"], ["o"], inner, [helper.make_opsetid("", 17)])
    call = helper.make_node("AbsNeg", ["y"], ["z"], name="call", domain="mine")
    path = conv_graph(extra_nodes=[call], outputs="z", functions=[function], domains=["mine"])
    denoiser = open_onnx(path)
    assert [layer.op for layer in denoiser.layers] == ["Conv", "Relu", "Conv", "Abs", "Neg"]
    x = image()
    y = denoiser.features(x, "c2")
    np.testing.assert_array_equal(denoiser.features(x, denoiser.layers[3].name), np.abs(y))
    np.testing.assert_array_equal(denoiser.denoise(x), -np.abs(y))


def test_several_tensors_of_one_node_are_told_apart(conv_graph, open_onnx):
    nodes = [
        helper.make_node("Concat", ["y", "x"], ["both"], axis=1),
        helper.make_node("Split", ["both"], ["left", "right"], name="halves", axis=1),
        helper.make_node("Add", ["left", "right"], ["z"]),
    ]
    denoiser = open_onnx(conv_graph(extra_nodes=nodes, outputs="z"))
    x = image()
    np.testing.assert_array_equal(denoiser.features(x, "halves[1]"), x)
    np.testing.assert_array_equal(denoiser.features(x, "right"), x)
    with pytest.raises(LayerError, match=r"halves\[0\].*halves\[1\]"):
        denoiser.features(x, "halves")


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (
            helper.make_node("BatchNormalization", ["y", *["one"] * 4], ["z", "m", "v"], training_mode=1),
            "eval",
        ),
        (helper.make_node("Dropout", ["y", "half", "yes"], ["z"], name="drop"), r"'drop'.*eval"),
        (helper.make_node("RandomNormalLike", ["y"], ["z"]), "random numbers"),
    ],
)
def test_graphs_that_change_from_run_to_run_are_refused(conv_graph, open_onnx, node, says):
    stored = [constant("one", np.ones(1)), constant("half", 0.5), constant("yes", True, np.bool_)]
    with pytest.raises(UnsupportedModelError, match=says):
        open_onnx(conv_graph(extra_nodes=[node], outputs="z", extra_stored=stored))


@pytest.mark.parametrize("versions", [{"ir": 99}, {"opset": 99}])
def test_O22_newer_versions_are_told(conv_graph, open_onnx, versions):
    with pytest.raises(
        ModelError, match=r"ONNX Runtime \d.*IR version \d+ and opset ai.onnx \d+.*older opset"
    ) as caught:
        open_onnx(conv_graph(**versions))
    assert "99" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_O23_operators_that_cannot_run_are_listed(conv_graph, open_onnx):
    nodes = [
        helper.make_node("Bar", ["y"], ["z1"], domain="com.foo"),
        helper.make_node("Baz", ["z1"], ["z"], domain="com.foo"),
    ]
    with pytest.raises(ModelError, match=r"com\.foo::Bar, com\.foo::Baz"):
        open_onnx(conv_graph(extra_nodes=nodes, outputs="z", domains=["com.foo"]))
    with pytest.raises(ModelError, match="Nonsense"):
        open_onnx(conv_graph(extra_nodes=[helper.make_node("Nonsense", ["y"], ["z"])], outputs="z"))
