"""Weights of files that are NaN or infinite, and constants that may be."""

import numpy as np
import onnx
import pytest
from ctinv.adapters.errors import ModelError
from onnx import helper

from ..by_hand import constant, image

NAN, INF = float("nan"), float("inf")


def saved(tmp_path, nodes, stored, name="model.onnx", **options):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 1, ["n", 1, "h", "w"])],
        [value("y", 1, ["n", 1, "h", "w"])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(tmp_path / name), **options)
    return tmp_path / name


def kernel(bad, channels=1):
    values = np.full((channels, 1, 3, 3), 0.1, np.float32)
    values[0, 0, 0, 0] = bad
    return values


def convolution(tmp_path, w, b=None, **options):
    stored = [constant("w", w)] + ([] if b is None else [constant("b", b)])
    node = helper.make_node(
        "Conv", [t.name for t in [helper.make_tensor("x", 1, [], [0]), *stored]], ["y"], pads=[1] * 4
    )
    return saved(tmp_path, [node], stored, **options)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_weights_and_biases_that_are_not_finite_are_refused_by_name(tmp_path, open_onnx, bad):
    with pytest.raises(ModelError, match="1 of 9 values of the weight 'w' are NaN or infinite; export"):
        open_onnx(convolution(tmp_path, kernel(bad)))
    with pytest.raises(ModelError, match="1 of 1 values of the weight 'b'"):
        open_onnx(convolution(tmp_path, kernel(0.1), np.float32([bad])))


def test_weights_in_a_second_file_too(tmp_path, open_onnx):
    path = convolution(tmp_path, kernel(NAN), save_as_external_data=True, location="w.data", size_threshold=0)
    with pytest.raises(ModelError, match="'w' are NaN"):
        open_onnx(path)


WRONG = {
    "constant node": lambda: (
        [
            helper.make_node("Constant", [], ["w"], value=constant("", kernel(INF))),
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4),
        ],
        [],
    ),
    "behind a reshape": lambda: (
        [
            helper.make_node("Reshape", ["v", "s"], ["w"]),
            helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4),
        ],
        [constant("v", kernel(-INF).ravel()), constant("s", [1, 1, 3, 3], np.int64)],
    ),
    "a factor": lambda: ([helper.make_node("Mul", ["x", "v"], ["y"])], [constant("v", [INF])]),
    "a bias": lambda: ([helper.make_node("Add", ["x", "v"], ["y"])], [constant("v", [-INF])]),
    "a term": lambda: (
        [helper.make_node("Add", ["x", "v"], ["y"])],
        [constant("v", np.full((1, 1, 1, 1), INF))],
    ),
    "nan anywhere": lambda: ([helper.make_node("Max", ["x", "v"], ["y"])], [constant("v", [NAN])]),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wherever_they_stand(tmp_path, open_onnx, kind):
    with pytest.raises(ModelError, match="are NaN or infinite"):
        open_onnx(saved(tmp_path, *WRONG[kind]()))


def mask():
    return np.where(np.tri(20, dtype=bool), 0.0, -INF).astype(np.float32)[None, None]


RIGHT = {
    "bounds": lambda: (
        [helper.make_node("Clip", ["x", "low", "high"], ["y"])],
        [constant("low", -INF), constant("high", INF)],
    ),
    "not used": lambda: ([helper.make_node("Relu", ["x"], ["y"])], [constant("v", [NAN])]),
    "a mask": lambda: (
        [
            helper.make_node("Add", ["x", "m"], ["a"]),
            helper.make_node("Softmax", ["a"], ["y"], axis=-1),
        ],
        [constant("m", mask()[:, :, -1:])],
    ),
    "a choice": lambda: (
        [
            helper.make_node("Less", ["x", "zero"], ["c"]),
            helper.make_node("Where", ["c", "v", "x"], ["a"]),
            helper.make_node("Softmax", ["a"], ["y"], axis=-1),
        ],
        [constant("v", -INF), constant("zero", -3.0)],
    ),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_masks_and_bounds_may_be_infinite(tmp_path, open_onnx, kind):
    denoiser = open_onnx(saved(tmp_path, *RIGHT[kind]()))
    assert np.isfinite(denoiser.denoise(image())).all()
