"""The operators of ONNX Runtime's own that its optimiser writes for a CPU, one by one: right, or refused.

Each stands in a graph of PyTorch's older exporter as the optimiser leaves it: named after the first
operator that it took in, its output after the last. What the layer gives must be what the runtime says of
that tensor, and the module that only began the operator must not answer without a word.
"""

import contextlib
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from ctinv.adapters.errors import CtinvError, LayerError
from onnx import TensorProto, helper

from ..by_hand import constant, image

SIDE, CHANNELS, WIDE = 8, 8, 64
RNG = np.random.default_rng(7)


def weights(*shape):
    return RNG.normal(0, 0.3, shape).astype(np.float32)


@dataclass
class Case:
    """One operator.

    Arguments:
        op: Its type.
        kind: ``map`` (N, C, H, W), ``tokens`` (N, 8, 64), ``rows`` (8, 64), or ``quantised``: a map in
            integers; ``nhwc`` for one with its channels last.
        stored: Its further operands: an array, ``x`` for the input once more, or empty for none.
        attributes: Of the operator.
        begins: The module that it is named after; ``m`` where it does all and only that.
        domain: Of the operator.
        outcome: ``right``, ``refused`` (with a reason), or ``absent``: no kernel on a CPU.
        first: Operands before the image's.
        note: What a reader is told.
    """

    op: str
    kind: str = "map"
    stored: tuple = ()
    attributes: dict = field(default_factory=dict)
    begins: str = "m"
    domain: str = "com.microsoft"
    outcome: str = "right"
    first: tuple = ()
    note: str = ""


U8 = np.uint8(128)
SCALE = np.float32(0.02)
Q = {"kind": "quantised", "note": "quantised"}
UNARY = (SCALE, U8, np.float32(0.03), U8)
CONV = (weights(CHANNELS, CHANNELS, 3, 3), weights(CHANNELS))
PADS = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
ONES = (np.ones((1, 1, 1, 1), bool),)
CODES = RNG.integers(0, 255, (CHANNELS, CHANNELS, 3, 3)).astype(np.uint8)
SQUARE = CODES[:, :, 0, 0].repeat(8, 0).repeat(8, 1)
HEADS = {"num_heads": 4}

CASES = [
    Case("FusedConv", stored=CONV, attributes={**PADS, "activation": "Relu"}, begins="c"),
    Case("FusedConv", stored=(*CONV, "x"), attributes={**PADS, "activation": "Relu"}, begins="c"),
    Case("FusedConv", stored=(*CONV, "x"), attributes=PADS, begins="c"),
    Case("FusedGemm", "rows", (weights(WIDE, WIDE), weights(WIDE)), {"activation": "Relu"}, "c"),
    Case("FusedMatMul", "tokens", (weights(WIDE, WIDE),), {"alpha": 0.5}, "c"),
    Case("TransposeMatMul", "tokens", (weights(WIDE, WIDE),), {"transB": 1}, "c"),
    Case("BiasGelu", "tokens", (weights(WIDE),), begins="c"),
    Case("FastGelu", "tokens", (weights(WIDE),), begins="c"),
    Case("Gelu"),
    Case("QuickGelu", attributes={"alpha": 1.702}),
    Case("LayerNormalization", "tokens", (weights(WIDE), weights(WIDE)), domain=""),
    Case("SimplifiedLayerNormalization", "tokens", (weights(WIDE),), domain=""),
    Case("SkipLayerNormalization", "tokens", ("x", weights(WIDE), weights(WIDE), weights(WIDE)), begins="c"),
    Case("SkipSimplifiedLayerNormalization", "tokens", ("x", weights(WIDE)), begins="c"),
    Case("Attention", "tokens", (weights(WIDE, 3 * WIDE), weights(3 * WIDE)), HEADS, "c"),
    Case("MultiHeadAttention", "tokens", ("x", "x"), HEADS, "c"),
    Case("BiasSoftmax", "tokens", (weights(WIDE),), {"axis": 2}, "c", outcome="absent"),
    Case("BiasSplitGelu", "tokens", (weights(WIDE),), begins="c", outcome="absent"),
    Case("GroupNorm", "nhwc", (weights(CHANNELS), weights(CHANNELS)), {"groups": 2}, outcome="absent"),
    Case("BiasAdd", "tokens", (weights(WIDE), "x"), begins="c", outcome="absent"),
    Case("BiasDropout", "tokens", (weights(WIDE),), begins="c", outcome="absent"),
    Case("DynamicQuantizeMatMul", "tokens", (SQUARE, SCALE, U8), begins="c"),
    Case("MatMulNBits", "tokens",
         (RNG.integers(0, 255, (WIDE, 2, 16)).astype(np.uint8), weights(WIDE * 2)),
         {"K": WIDE, "N": WIDE, "bits": 4, "block_size": 32}, "c"),
    Case("QLinearConv", "quantised", (SCALE, U8, CODES, SCALE, U8, np.float32(0.5), U8), PADS, domain="",
         note="quantised"),
    Case("QLinearAdd", stored=(SCALE, U8, "x", *UNARY), begins="c", **Q),
    Case("QLinearMul", stored=(SCALE, U8, "x", *UNARY), begins="c", **Q),
    Case("QLinearLeakyRelu", stored=UNARY, attributes={"alpha": 0.2}, **Q),
    Case("QLinearSigmoid", stored=UNARY, **Q),
    Case("QLinearSoftmax", stored=UNARY, attributes={"axis": 1, "opset": 13}, **Q),
    Case("QLinearAveragePool", stored=UNARY, attributes=PADS, **Q),
    Case("QLinearGlobalAveragePool", stored=UNARY, **Q),
    Case("QLinearConcat", first=UNARY[2:], stored=(SCALE, U8), attributes={"axis": 1}, **Q),
    Case("QLinearReduceMean", "quantised", UNARY, {"axes": [1], "keepdims": 1}, outcome="absent"),
    Case("QLinearWhere", first=ONES, stored=(SCALE, U8, "x", *UNARY), begins="c", **Q),
    Case("NhwcMaxPool", "nhwc8", attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, note="quantised"),
    Case("NhwcFusedConv", "nhwc", CONV, {**PADS, "activation": "Relu"}, "c", outcome="absent"),
    Case("MatMulIntegerToFloat", "rows8", (SQUARE, SCALE, SCALE, U8, U8),
         begins="c"),
    Case("QGemm", "rows8", (SCALE, U8, SQUARE, SCALE, U8, "",
                           np.float32(0.5), U8), note="quantised"),
    Case("QAttention", "tokens8", (RNG.integers(0, 255, (WIDE, 3 * WIDE)).astype(np.uint8), weights(3 * WIDE),
                                  SCALE, SCALE, "", U8, U8), HEADS, "c"),
    Case("EmbedLayerNormalization", "tokens8", outcome="refused"),
]  # fmt: skip

RESHAPES = {"map": (1, CHANNELS, SIDE, SIDE), "tokens": (1, CHANNELS, WIDE), "rows": (CHANNELS, WIDE)}


def graph(case):
    """Image -> convolution -> the operator -> convolution -> image, and the tensor of the operator."""
    stored = [
        constant("head.weight", weights(CHANNELS, 1, 3, 3)),
        constant("tail.weight", weights(1, 8, 1, 1)),
    ]
    nodes = [helper.make_node("Conv", ["x", "head.weight"], ["/head/Conv_output_0"], "/head/Conv", **PADS)]
    h, eight = "/head/Conv_output_0", case.kind.endswith("8") or case.kind == "quantised"
    kind = case.kind.removesuffix("8")

    def step(op, operands, output, **attributes):
        nodes.append(helper.make_node(op, operands, [output], f"/{op}_{len(nodes)}", **attributes))
        return output

    def put(value, name):
        stored.append(constant(name, value, np.asarray(value).dtype))
        return name

    if kind in ("tokens", "rows"):
        h = step("Reshape", [h, put(np.array(RESHAPES[kind]), "there")], "turned")
    if kind == "nhwc":
        h = step("Transpose", [h], "turned", perm=[0, 2, 3, 1])
    if eight:
        h = step("QuantizeLinear", [h, put(SCALE, "in.scale"), put(U8, "in.zero")], "in_quantized")
    first = [put(value, f"first{k}") for k, value in enumerate(case.first)]
    names = []
    for k, value in enumerate(case.stored):
        plain = isinstance(value, str)
        names.append({"x": h, "": ""}[value] if plain else put(value, f"{case.begins}.operand{k}"))
    last = "/m/Last_output_0" if case.begins != "m" else f"/m/{case.op}_output_0"
    begun = f"/{case.begins}/{'Conv' if 'Conv' in case.op else 'MatMul' if 'Mul' in case.op else 'Add'}"
    name = begun if case.begins != "m" else f"/m/{case.op}"
    integer = case.note == "quantised"
    out = f"{last}_quantized" if integer else last
    nodes.append(
        helper.make_node(case.op, [*first, h, *names], [out], name, domain=case.domain, **case.attributes)
    )
    if integer:
        at = {"QLinearConv": "operand5", "QGemm": "operand6"}.get(case.op, f"operand{len(names) - 2}")
        scale = "first0" if case.op == "QLinearConcat" else f"{case.begins}.{at}" if names else "in.scale"
        zero = "first1" if case.op == "QLinearConcat" else scale.replace(at, f"operand{int(at[7:]) + 1}")
        out = step("DequantizeLinear", [out, scale, zero if names or first else "in.zero"], "back")
    if kind == "nhwc":
        out = step("Transpose", [out], "back_turned", perm=[0, 3, 1, 2])
    if "Global" in case.op:
        out = step("Add", [out, "/head/Conv_output_0"], "spread")
    if kind in ("tokens", "rows"):
        out = step("Reshape", [out, put(np.array(RESHAPES["map"]), "back_again")], "again")
    nodes.append(helper.make_node("Conv", [out, "tail.weight"], ["y"], "/tail/Conv", kernel_shape=[1, 1]))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, SIDE, SIDE]) for n in "xy"]
    made = helper.make_graph(nodes, "contrib", values[:1], values[1:], stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, producer_name="pytorch", ir_version=8), last


def truth(model, tensor, x):
    """What the runtime itself says of a tensor, as floats; None where it has no such operator."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = {name for node in copy.graph.node for name in node.output}
    fetch = tensor if tensor in names else "back"
    if fetch != "y":
        copy.graph.output.append(onnx.ValueInfoProto(name=fetch))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run([fetch], {"x": (x + 1024) / 4096})[0]
    except Exception:  # whatever the runtime raises for an operator that it lacks
        return None


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{len(case.stored)}-{case.begins}")
def test_law_each_operator_is_right_or_refused(case, tmp_path, open_onnx):
    model, tensor = graph(case)
    path = tmp_path / "contrib.onnx"
    onnx.save(model, path)
    x = image(1, SIDE, SIDE) * 300
    if case.outcome != "right":
        with pytest.raises(CtinvError, match=r"onnxruntime|ONNX Runtime|runtime"):
            open_onnx(path, intensity="unit:-1024:3072").features(x, "m")
        return
    right = truth(model, tensor, x)
    assert right is not None, "the runtime has it on a CPU"
    denoiser = open_onnx(path, intensity="unit:-1024:3072", output="image")
    places = {layer.name: denoiser._places.get(layer.name) for layer in denoiser.layers}
    layers = [
        layer
        for layer in denoiser.layers
        if layer.tappable and places[layer.name].tensor.removesuffix("_quantized") in (tensor, "back")
    ]
    assert layers, [layer.name for layer in denoiser.layers]
    layer = layers[0]
    if right.ndim == 4 and "nhwc" in case.kind:
        right = right.transpose(0, 3, 1, 2)
    z = denoiser.features(x, layer.name)
    np.testing.assert_allclose(z.reshape(right.shape), right, atol=1e-4)
    assert case.note in layer.note
    if case.begins != "m":
        assert layer.name != case.begins
        with contextlib.suppress(LayerError):
            denoiser.features(x, case.begins)
            assert denoiser.resolve(case.begins).note


def test_the_table_has_every_operator_that_the_optimiser_writes():
    known = {case.op for case in CASES}
    asked = """FusedConv FusedMatMul FusedGemm BiasGelu FastGelu Gelu QuickGelu LayerNormalization
    SkipLayerNormalization SimplifiedLayerNormalization SkipSimplifiedLayerNormalization Attention
    MultiHeadAttention NhwcMaxPool QLinearConv QLinearAdd QLinearMul QLinearConcat QLinearLeakyRelu
    QLinearSigmoid QLinearSoftmax QLinearAveragePool QLinearGlobalAveragePool NhwcFusedConv
    DynamicQuantizeMatMul MatMulIntegerToFloat MatMulNBits QAttention QGemm BiasSplitGelu GroupNorm"""
    assert set(asked.split()) <= known
