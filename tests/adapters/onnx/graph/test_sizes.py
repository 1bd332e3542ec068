"""Which axes are free, and which fixed sizes can be lifted."""

import numpy as np
import pytest
from ctinv.adapters.base import OUTPUT
from onnx import helper

from ..by_hand import constant, image


@pytest.mark.parametrize("free", ["n", None, "", "Suby_dim_0"])
def test_O14_named_and_unnamed_axes_are_free(conv_graph, open_onnx, free):
    denoiser = open_onnx(conv_graph(shape=(free, 1, free and f"{free}_h", free and f"{free}_w")))
    for shape in ((1, 24, 20), (3, 17, 31)):
        assert denoiser.features(image(*shape), "r").shape == (shape[0], 3, *shape[1:])
    assert not denoiser.notices


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), ("n", 1, 32, 32), (4, 1, "h", "w"), (1, 1, 48, "w")])
def test_O13_fixed_sizes_are_lifted_where_operators_allow_and_announced(conv_graph, open_onnx, shape):
    fixed, free = open_onnx(conv_graph(shape)), open_onnx(conv_graph())
    for size in ((3, 40, 28), (1, 32, 32), (5, 16, 64)):
        x = image(*size)
        for name in ("r", OUTPUT):
            np.testing.assert_allclose(fixed.features(x, name), free.features(x, name), atol=1e-6)
    assert sum("outputs at the fixed size proved equal" in notice for notice in fixed.notices) == 1


@pytest.mark.parametrize(
    ("node", "stored", "liftable"),
    [
        (
            helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]),
            {"s": [0], "e": [32], "axes": [2]},
            False,
        ),
        (
            helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]),
            {"s": [0], "e": [2**31 - 1], "axes": [2]},
            True,
        ),
        (helper.make_node("Slice", ["y", "s", "e", "axes"], ["z"]), {"s": [0], "e": [1], "axes": [1]}, True),
        (helper.make_node("Resize", ["y", "", "", "s"], ["z"]), {"s": [1, 1, 32, 32]}, False),
        (helper.make_node("Expand", ["y", "s"], ["z"]), {"s": [1, 1, 32, 32]}, False),
        (helper.make_node("ReduceMean", ["y"], ["z"], axes=[2, 3]), {}, True),
        (helper.make_node("ReduceMean", ["y"], ["z"], axes=[-4]), {}, False),
        (helper.make_node("ReduceMean", ["y"], ["z"]), {}, False),
        (helper.make_node("Softmax", ["y"], ["z"], axis=1), {}, True),
        (helper.make_node("Softmax", ["y"], ["z"], axis=3), {}, False),
        (helper.make_node("Concat", ["y"], ["z"], axis=1), {}, True),
    ],
)
def test_O13_which_operators_can_be_lifted(conv_graph, open_onnx, node, stored, liftable):
    values = [constant(name, value, np.int64) for name, value in stored.items()]
    denoiser = open_onnx(conv_graph((1, 1, 32, 32), extra_nodes=[node], outputs="z", extra_stored=values))
    assert (denoiser._runner.lifted() is not None) == liftable
