"""Twins of graphs that take a noise level as a channel of the image."""

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
X = RNG.normal(0, 300, (2, 1, 24, 20)).astype(np.float32)
node = helper.make_node


def saved(folder, last):
    """Two convolutions, the first over the image and the level; ``last`` for channels that come last."""
    weights = {"w": RNG.normal(size=(3, 2, 3, 3)), "v": 0.1 * RNG.normal(size=(1, 3, 3, 3))}
    nodes = [
        node("Conv", ["u", "w"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["z"], pads=[1] * 4),
    ]
    axes = [(0, 2, 3, 1), (0, 3, 1, 2)] if last else [(0, 1, 2, 3)] * 2
    turns = [node("Transpose", ["x"], ["u"], perm=axes[1]), node("Transpose", ["z"], ["y"], perm=axes[0])]
    shape = ["n", "h", "w", 2] if last else ["n", 2, "h", "w"]
    graph = helper.make_graph(
        [turns[0], *nodes, turns[1]],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), folder / "m.onnx"
    )
    return folder / "m.onnx"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("layer", ["r", "@output"])
def test_a_level_that_is_a_channel_is_bound_in_twins_too(tmp_path, last, layer):
    path = saved(tmp_path, last)
    low, high = (
        adapters.load(path, intensity="unit:-1000:1000", output="image", feed={"sigma": level}, device="cpu")
        for level in (0.1, 0.9)
    )
    values = []
    for denoiser in (low, high):
        twin, inner = denoiser.twin(layer)
        values.append(twin.features(X, inner))
        np.testing.assert_allclose(values[-1], denoiser.features(X, layer), rtol=1e-4, atol=1e-2)
        assert twin.differentiable
    assert np.abs(values[0] - values[1]).max() > 0.1
    assert low.twin(layer)[0].fingerprint != high.twin(layer)[0].fingerprint


def test_its_gradients_are_by_the_image_alone(tmp_path):
    denoiser = adapters.load(
        saved(tmp_path, False), intensity="unit:-1000:1000", output="image", feed={"sigma": 0.3}, device="cpu"
    )
    twin, inner = denoiser.twin("r")
    x = torch.from_numpy(X).requires_grad_()
    z = twin.features(x, inner, grad=True)
    (slope,) = torch.autograd.grad(z.sum(), x)
    step = torch.zeros_like(x)
    step[:, :, 12, 10] = 1.0
    ends = [denoiser.features((x + s * step).detach().numpy(), "r") for s in (0.5, -0.5)]
    want = (ends[0] - ends[1]).sum()
    assert float((slope * step).sum()) == pytest.approx(float(want), rel=1e-2, abs=1e-3)
