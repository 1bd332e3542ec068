"""Operators rebuilt in PyTorch: the values are ONNX Runtime's, the gradients those of finite differences."""

import numpy as np
import onnx
import pytest
import torch
from ctinv import adapters
from onnx import TensorProto, helper, numpy_helper

X = np.random.default_rng(3).normal(0, 900, (2, 1, 12, 10)).astype(np.float32)


def stored():
    rng = np.random.default_rng(0)
    floats = {
        "w": rng.normal(size=(4, 1, 3, 3)),
        "w2": rng.normal(size=(4, 1, 3, 2)),
        "g": rng.normal(size=(4, 2, 3, 3)),
        "t": rng.normal(size=(4, 3, 3, 3)) * 0.3,
        "b": rng.normal(size=4),
        "b3": rng.normal(size=3),
        "up": rng.uniform(0.5, 2, size=4),
        "up2": rng.uniform(0.5, 2, size=2),
        "mix": rng.normal(size=(10, 6)) * 0.3,
        "six": rng.normal(size=6),
        "row": rng.uniform(0.5, 2, size=10),
        "table": rng.normal(size=(12, 10)) * 0.3,
        "half": 0.5,
        "two": 2.0,
        "third": 3.0,
        "low": -0.3,
        "high": 0.4,
        "flow": rng.uniform(-1.1, 1.1, size=(2, 5, 6, 2)),
        "lw": rng.normal(size=(1, 12, 10)) * 0.3,
        "lr": rng.normal(size=(1, 12, 3)),
        "lb": rng.normal(size=(1, 24)),
        "gw": rng.normal(size=(2, 9, 10)) * 0.3,
        "gr": rng.normal(size=(2, 9, 3)),
        "scales2": [1, 1, 2, 2],
        "scales3": [1, 1, 2.5, 1.5],
        "less": [1, 1, 0.5, 0.6],
    }
    ints = {
        "flat": [0, 4, -1],
        "back": [0, 0, 12, 10],
        "axes2": [2],
        "axes02": [0, 2],
        "axes23": [2, 3],
        "none": [],
        "two_two": [2, 2],
        "one_three": [1, 3],
        "pads": [0, 0, 1, 2, 0, 0, 3, 0],
        "cut": [0, 0, -1, 2, 0, 0, 1, -3],
        "pads23": [1, 2, 0, 1],
        "starts": [1, -8],
        "ends": [-1, 2**31],
        "backwards": [-1, 9],
        "to_start": [-(2**63), 2],
        "steps": [2, 3],
        "minus": [-1, -2],
        "few": [3, 0, -1],
        "grid": [[0, 2], [1, -1]],
        "zero": 0,
        "ten": 10,
        "one": 1,
        "sizes": [2, 4, 17, 13],
        "big": [2, 1, 4, 1, 1],
        "shape": [1, 4, 1, 10],
        "place": [[0, 1], [1, 3]],
        "times": [1, 2, 1, 1],
        "three": [3],
        "axis4": [4],
        "elements": np.broadcast_to(np.array([0, 5, -1])[:, None], (2, 4, 3, 10)),
    }
    found = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in floats.items()]
    return found + [numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in ints.items()]


def n(op, inputs, outputs="y", **attributes):
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), **attributes)


CONV = n("Conv", "x w b", "c", pads=[1, 1, 1, 1])
POSITIVE = [CONV, n("Mul", "c c", "cc"), n("Add", "cc half", "p")]


def after(*nodes):
    return [CONV, *nodes]


def inner(nodes, outputs, inputs=()):
    """A subgraph; its inputs are a count and a condition, and floats."""
    kinds = [TensorProto.INT64, TensorProto.BOOL]
    values = [
        helper.make_tensor_value_info(name, (*kinds, *[TensorProto.FLOAT] * 9)[k], [] if k < 2 else None)
        for k, name in enumerate(inputs)
    ]
    found = [
        helper.make_tensor_value_info(name, TensorProto.BOOL if name == "go" else TensorProto.FLOAT, None)
        for name in outputs
    ]
    return helper.make_graph(nodes, "inner", values, found)


STEPS = ("Ceil", "Floor", "Round", "Sign")
CASES: dict[str, list] = {
    # windows
    "Conv uneven": [n("Conv", "x w", pads=[0, 1, 2, 0])],
    "Conv same upper": [n("Conv", "x w2 b", auto_pad="SAME_UPPER", strides=[2, 2])],
    "Conv same lower": [n("Conv", "x w2 b", auto_pad="SAME_LOWER")],
    "Conv valid": [n("Conv", "x w b", auto_pad="VALID")],
    "Conv groups": after(n("Conv", "c g b", group=2, strides=[2, 1], pads=[1, 0, 1, 0])),
    "ConvTranspose": after(n("ConvTranspose", "c t b3", strides=[2, 2], pads=[1, 1, 1, 1])),
    "ConvTranspose extra": after(
        n("ConvTranspose", "c t", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    ),
    "ConvTranspose uneven": after(n("ConvTranspose", "c t b3", strides=[2, 1], pads=[0, 1, 1, 2])),
    "ConvTranspose same": after(n("ConvTranspose", "c t b3", strides=[2, 2], auto_pad="SAME_UPPER")),
    "ConvTranspose shape": after(n("ConvTranspose", "c t", strides=[2, 2], output_shape=[24, 21])),
    "MaxPool": after(n("MaxPool", "c", kernel_shape=[2, 2], strides=[2, 2])),
    "MaxPool padded": after(n("MaxPool", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)),
    "MaxPool uneven": after(n("MaxPool", "c", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")),
    "AveragePool": after(n("AveragePool", "c", kernel_shape=[2, 2], strides=[2, 2])),
    "AveragePool padded": after(n("AveragePool", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
    "AveragePool whole": after(
        n("AveragePool", "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    ),
    "AveragePool uneven": after(n("AveragePool", "c", kernel_shape=[3, 2], pads=[0, 1, 2, 0])),
    "AveragePool uneven whole": after(
        n("AveragePool", "c", kernel_shape=[3, 2], pads=[0, 1, 2, 0], count_include_pad=1)
    ),
    "GlobalAveragePool": after(n("GlobalAveragePool", "c")),
    "GlobalMaxPool": after(n("GlobalMaxPool", "c")),
    "Pad": after(n("Pad", "c pads half")),
    "Pad cut": after(n("Pad", "c cut")),
    "Pad reflect": after(n("Pad", "c pads", mode="reflect")),
    "Pad edge": after(n("Pad", "c cut", mode="edge")),
    "Pad axes": after(n("Pad", "c pads23  axes23", mode="reflect")),
    "DepthToSpace": after(n("DepthToSpace", "c", blocksize=2)),
    "DepthToSpace CRD": after(n("DepthToSpace", "c", blocksize=2, mode="CRD")),
    "SpaceToDepth": after(n("SpaceToDepth", "c", blocksize=2)),
    # shapes
    "Reshape": after(n("Reshape", "c flat", "f"), n("Mul", "f two", "m"), n("Reshape", "m back")),
    "Reshape to a number": after(n("Reshape", "third none", "k"), n("Mul", "c k")),
    "Flatten": after(n("Flatten", "c", axis=2)),
    "Transpose": after(n("Transpose", "c", perm=[0, 1, 3, 2])),
    "Unsqueeze Squeeze": after(n("Unsqueeze", "c axes2", "u"), n("Squeeze", "u axes2")),
    "Slice": after(n("Slice", "c starts ends axes23")),
    "Slice steps": after(n("Slice", "c starts ends axes23 steps")),
    "Slice backwards": after(n("Slice", "c backwards to_start axes23 minus")),
    "Split": after(n("Split", "c one_three", "a d", axis=1), n("Mul", "a d")),
    "Split even": after(n("Split", "c", "a d", axis=1, num_outputs=2), n("Sub", "a d")),
    "Gather": after(n("Gather", "c few", axis=1)),
    "Gather grid": after(n("Gather", "c grid", axis=2)),
    "Gather one": after(n("Gather", "c one", axis=3)),
    "Shape": after(
        n("Shape", "c", "s"),
        n("Gather", "s few", "k"),
        n("ReduceProd", "k", "area", keepdims=0),
        n("Cast", "area", "number", to=TensorProto.FLOAT),
        n("Div", "c number"),
    ),
    "Shape in part": after(
        n("Shape", "c", "s", start=1),
        n("Gather", "s one", "rows"),
        n("Cast", "rows", "number", to=TensorProto.FLOAT),
        n("Div", "c number"),
    ),
    "Concat": after(n("Concat", "c x c", axis=1)),
    "Expand Tile": after(n("Expand", "x shape", "e"), n("Tile", "e times", "tt"), n("Sin", "tt")),
    "ConstantOfShape Range Where": after(
        n("Shape", "c", "s"),
        n("ConstantOfShape", "s", "zeros"),
        n("Range", "zero ten one", "r"),
        n("Cast", "r", "rf", to=TensorProto.FLOAT),
        n("Greater", "rf third", "late"),
        n("Where", "late c zeros"),
    ),
    "ScatterND": after(
        n("Slice", "c zero_one one_one axes2", "head"),
        n("Gather", "c place_rows", "rows", axis=0),
        n("Gather", "rows zero", "each", axis=1),
        n("Exp", "each", "e"),
        n("ScatterND", "c place e"),
    ),
    "GatherElements": after(n("GatherElements", "c elements", axis=2)),
    "GatherND": after(n("GatherND", "c place")),
    "ScatterElements": after(
        n("GatherElements", "c elements", "some", axis=2),
        n("Exp", "some", "e"),
        n("ScatterElements", "c elements e", axis=2),
    ),
    "ScatterElements sum": after(
        n("GatherElements", "c elements", "some", axis=2),
        n("ScatterElements", "c elements some", axis=2, reduction="add"),
    ),
    "TopK": after(n("TopK", "c three", "v i", axis=3), n("Mul", "v v")),
    "CumSum": after(n("CumSum", "c one", exclusive=1, reverse=1)),
    "Trilu": after(n("Trilu", "c one", upper=0)),
    "GridSample": after(n("GridSample", "c flow")),
    "GridSample cubic": after(n("GridSample", "c flow", mode="cubic", padding_mode="border")),
    "DFT": after(n("Unsqueeze", "c axis4", "u"), n("DFT", "u  one")),
    "If": after(
        n("Greater", "third two", "flag"),
        n(
            "If",
            "flag",
            then_branch=inner([n("Mul", "c third", "t")], ["t"]),
            else_branch=inner([n("Sin", "c", "e")], ["e"]),
        ),
    ),
    "Loop": after(
        n(
            "Loop",
            "three  c",
            "last y",
            body=inner(
                [
                    n("Identity", "on", "go"),
                    n("Mul", "v half", "v2"),
                    n("Add", "v2 c", "v3"),
                    n("Sin", "v3", "v4"),
                ],
                ["go", "v3", "v4"],
                ["i", "on", "v"],
            ),
        ),
    ),
    # norms, sums, products
    "LpNormalization": after(n("LpNormalization", "c", axis=1)),
    "LRN": after(n("LRN", "c", size=3, alpha=0.2)),
    "LpPool": after(n("LpPool", "c", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0])),
    "ReduceLogSum": [*POSITIVE, n("ReduceLogSum", "p axes2")],
    "LSTM": after(
        n("Flatten", "c", "f", axis=3),
        n("Unsqueeze", "f one_one", "s"),
        n("LSTM", "s lw lr lb", hidden_size=3),
    ),
    "GRU": after(
        n("Flatten", "c", "f", axis=3),
        n("Unsqueeze", "f one_one", "s"),
        n("GRU", "s gw gr", hidden_size=3, direction="bidirectional", linear_before_reset=1),
    ),
    "BatchNormalization": after(n("BatchNormalization", "c up b b up", epsilon=0.1)),
    "InstanceNormalization": after(n("InstanceNormalization", "c up b", epsilon=0.01)),
    "LayerNormalization": after(n("LayerNormalization", "c row row")),
    "LayerNormalization axes": after(n("LayerNormalization", "c row", axis=2, epsilon=0.01)),
    "GroupNormalization": after(n("GroupNormalization", "c up2 up2", num_groups=2)),
    "GroupNormalization 21": after(n("GroupNormalization", "c up b", num_groups=2)),
    "Softmax": after(n("Softmax", "c")),
    "Softmax old": after(n("Softmax", "c", axis=1)),
    "LogSoftmax": after(n("LogSoftmax", "c", axis=1)),
    "MatMul": after(n("MatMul", "c mix")),
    "Gemm": after(
        n("GlobalAveragePool", "c", "p"),
        n("Flatten", "p", "f"),
        n("MatMul", "f square", "fs"),
        n("Gemm", "fs square b", alpha=0.5, beta=2.0, transB=1),
    ),
    "Einsum": after(n("Einsum", "c mix", equation="nchw,wk->nhkc")),
    "ReduceMean": after(n("ReduceMean", "c axes23", keepdims=1)),
    "ReduceSum": after(n("ReduceSum", "c axes2", keepdims=0)),
    "ReduceMax": after(n("ReduceMax", "c axes23")),
    "ReduceMin": after(n("ReduceMin", "c axes2")),
    "ReduceProd": after(n("ReduceProd", "c axes2")),
    "ReduceL1": after(n("ReduceL1", "c axes23")),
    "ReduceL2": after(n("ReduceL2", "c axes2")),
    "ReduceLogSumExp": after(n("ReduceLogSumExp", "c axes2")),
    "ReduceSumSquare": after(n("ReduceSumSquare", "c axes23", keepdims=0)),
    # each value alone
    "Pow": [*POSITIVE, n("Pow", "p third")],
    "Pow of a map": [*POSITIVE, n("Pow", "p row")],
    "Sqrt": [*POSITIVE, n("Sqrt", "p")],
    "Log": [*POSITIVE, n("Log", "p")],
    "Reciprocal": [*POSITIVE, n("Reciprocal", "p")],
    "LeakyRelu": after(n("LeakyRelu", "c", alpha=0.3)),
    "PRelu": after(n("PRelu", "c row")),
    "Elu": after(n("Elu", "c", alpha=0.7)),
    "Celu": after(n("Celu", "c", alpha=0.7)),
    "Selu": after(n("Selu", "c")),
    "Selu other": after(n("Selu", "c", alpha=1.2, gamma=0.8)),
    "ThresholdedRelu": after(n("ThresholdedRelu", "c", alpha=0.3)),
    "HardSigmoid": after(n("HardSigmoid", "c", alpha=0.3, beta=0.4)),
    "Gelu tanh": after(n("Gelu", "c", approximate="tanh")),
    "Clip": after(n("Clip", "c low high")),
    "Max Min": after(n("Max", "c low", "m"), n("Min", "m high x")),
    "Mean Sum": after(n("Mean", "c x", "m"), n("Sum", "m c x")),
    "Div Neg": after(n("Div", "c third", "d"), n("Neg", "d")),
    "Dropout": after(n("Dropout", "c")),
    "Mod": after(n("Mod", "c third", fmod=1)),
    "Shrink": after(n("Shrink", "c", bias=0.1, lambd=0.2)),
}
for _op in (
    *("Abs", "Cos", "Erf", "Exp", "Gelu", "HardSwish", "Identity", "Mish", "Relu", "Sigmoid", "Sin"),
    *("Softplus", "Softsign", "Tanh", "Atan", "Asinh", "Sinh", *STEPS),
):
    CASES[_op] = after(n(_op, "c"))
for _rule in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
    for _mode, _scales in (("nearest", "scales2"), ("nearest", "scales3"), ("linear", "scales3")):
        CASES[f"Resize {_mode} {_rule} {_scales}"] = after(
            n("Resize", f"c  {_scales}", mode=_mode, coordinate_transformation_mode=_rule)
        )
CASES |= {
    "Resize floor": after(
        n("Resize", "c  scales3", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    ),
    "Resize ceil": after(
        n("Resize", "c  scales3", coordinate_transformation_mode="asymmetric", nearest_mode="ceil")
    ),
    "Resize smaller": after(n("Resize", "c  less", mode="linear")),
    "Resize cubic": after(n("Resize", "c  scales3", mode="cubic")),
    "Resize cubic inside": after(
        n("Resize", "c  scales3", mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
    ),
    "Resize sizes": after(n("Resize", "c   sizes", mode="linear")),
    "Resize old": after(n("Resize", "c scales2", mode="nearest")),
    "Upsample": after(n("Upsample", "c scales3", mode="linear")),
    "Squeeze old": after(n("Unsqueeze", "c", "u", axes=[0]), n("Squeeze", "u", axes=[0])),
    "Slice old": after(n("Slice", "c", starts=[1, 2], ends=[-1, 9], axes=[2, 3])),
    "Split old": after(n("Split", "c", "a d", axis=1, split=[2, 2]), n("Mul", "a d")),
    "Clip old": after(n("Clip", "c", min=-0.2, max=0.3)),
    "Pad old": after(n("Pad", "c", pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.25)),
    "ReduceMean old": after(n("ReduceMean", "c", axes=[2, 3], keepdims=0)),
    "Dropout old": after(n("Dropout", "c", ratio=0.3)),
}
OPSETS = {"Upsample": 9, "Slice old": 9, "Resize old": 10, "Pad old": 10, "Clip old": 10, "Split old": 11}
OPSETS |= {"Squeeze old": 11, "Softmax old": 11, "ReduceMean old": 13, "Dropout old": 7, "Dropout": 13}
OPSETS |= {"GroupNormalization": 18, "GroupNormalization 21": 21}


def graph(tmp_path, nodes, opset):
    weights = stored()
    rng = np.random.default_rng(9)
    weights += [
        numpy_helper.from_array(rng.normal(size=(4, 4)).astype(np.float32), "square"),
        numpy_helper.from_array(np.array([0], np.int64), "zero_one"),
        numpy_helper.from_array(np.array([1], np.int64), "one_one"),
        numpy_helper.from_array(np.array([0, 1], np.int64), "place_rows"),
    ]
    used = {name for node in nodes for name in node.input} | {"half"}  # subgraphs read that
    model = helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Add", ["x", "x"], ["image"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, "H", "W"])],
            [tensor for tensor in weights if tensor.name in used],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "g.onnx")
    return adapters.load(tmp_path / "g.onnx", intensity="unit:-1000:1000", output="image", threads=1)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(tmp_path, name, monkeypatch):
    from ctinv.adapters.onnx.twin.module import rebuilt

    denoiser = graph(tmp_path, CASES[name], OPSETS.get(name, 20))
    runner = denoiser._runner
    monkeypatch.setattr(runner, "_mixes", lambda *_: False)  # some graphs count the images on purpose
    module, _ = rebuilt(runner.trace, denoiser._places["y"], runner.inputs, False, False)
    u = torch.from_numpy(X) / 1000 - 0.05
    (expected,) = runner.read(u.numpy(), [denoiser._places["y"]]).values()
    value = module(u).numpy()
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-5 * np.abs(expected).max())

    module = module.double()
    u = u.double().requires_grad_()
    weights = torch.randn(value.shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((module(u) * weights).sum(), u)
    direction = torch.randn(u.shape, dtype=torch.float64)
    with torch.no_grad():
        step = 1e-6 * direction
        slope = ((module(u + step) - module(u - step)) * weights).sum() / 2e-6
    found = (gradient * direction).sum()
    assert torch.isclose(found, slope, rtol=1e-5, atol=1e-6), (found, slope)
    assert (gradient.abs().max() == 0) == (name in STEPS)


@pytest.mark.parametrize("name", ["And", "Or", "Equal", "Less", "LessOrEqual", "GreaterOrEqual"])
def test_conditions(tmp_path, name):
    nodes = after(
        n("Greater", "c low", "i"),
        n("Less", "c high", "j"),
        n("Not", "j", "k"),
        n(name, "i k" if name in ("And", "Or", "Equal") else "c high", "chosen"),
        n("Size", "c", "count"),
        n("CastLike", "count c", "number"),
        n("Div", "c number", "small"),
        n("Where", "chosen c small"),
    )
    denoiser = graph(tmp_path, nodes, 20)
    found, layer = denoiser.twin("y")
    np.testing.assert_allclose(found.features(X, layer), denoiser.features(X, "y"), rtol=1e-5, atol=1e-7)
