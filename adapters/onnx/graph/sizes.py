"""Lift a fixed batch or image size from a graph whose operators work at any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from .layout import NCHW, NHWC
from .trace import Trace

__all__ = ["PIXELWISE", "relax", "words"]


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


PIXELWISE = words(
    """Abs Acos Add And Asin Atan AveragePool BatchNormalization Cast Ceil Celu Clip ConstantOfShape Conv
    ConvInteger ConvTranspose Cos DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Elu Equal
    Erf Exp Floor Gelu GlobalAveragePool GlobalMaxPool Greater GroupNormalization HardSigmoid HardSwish
    Identity InstanceNormalization LRN LeakyRelu Less Log LpPool Max MaxPool Mean Min Mish Mul Neg Not Or
    PRelu Pow QLinearAdd QLinearAveragePool QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul
    QLinearSigmoid QuantizeLinear Reciprocal Relu Round Selu Shape Sigmoid Sign Sin Softplus Softsign
    SpaceToDepth Sqrt Sub Sum Tanh ThresholdedRelu Where"""
)
"""Operators that treat every pixel of every image alike, their constants aside."""
_OPERANDS = words(
    "Add And Div Equal Greater Less Max Mean Min Mul Or PRelu Pow QLinearAdd QLinearMul Sub Sum Where"
)
_END = 2**31 - 1


def relax(trace: Trace, layouts: dict[str, str]) -> tuple[onnx.ModelProto | None, str]:
    """A copy of the model with free batch, height and width.

    Arguments:
        trace: The graph.
        layouts: Layouts of its tensors.

    Returns:
        The copy and an empty text, or None and the operator that stands in the way. Whether the
        copy computes the same is for the caller to try.
    """
    model = onnx.ModelProto()
    model.CopyFrom(trace.model)
    model.graph.ClearField("value_info")
    for index, node in enumerate(trace.nodes):
        if not any(name in trace.from_image for name in node.output):
            continue
        if node.op_type == "Reshape" and (order := _moves_channels(node, trace, layouts)):
            swapped = onnx.helper.make_node("Transpose", node.input[:1], node.output, node.name, perm=order)
            model.graph.node[index].CopyFrom(swapped)
        elif not _free(node, trace, layouts):
            return None, f"{node.op_type} {node.name or node.output[0]!r}"
    for value in model.graph.input:
        if value.name == trace.image:
            axes = (0, 1, 2) if layouts[trace.image] == NHWC else (0, 2, 3)
            for axis, symbol in zip(axes, ("N", "H", "W"), strict=True):
                value.type.tensor_type.shape.dim[axis].dim_param = f"ctinv_{symbol}"
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model, ""


def _moves_channels(node: onnx.NodeProto, trace: Trace, layouts: dict[str, str]) -> tuple[int, ...]:
    """The transposition that equals a reshape of single-channel images between layouts."""
    before, after = layouts.get(node.input[0]), layouts.get(node.output[0])
    shapes = trace.shapes.get(node.input[0]), trace.shapes.get(node.output[0])
    if trace.constant(node.input[1]) is None or None in shapes or shapes[0] == shapes[1]:
        return ()
    if (before, after) == (NHWC, NCHW):
        return (0, 3, 1, 2)
    return (0, 2, 3, 1) if (before, after) == (NCHW, NHWC) else ()


def _axes(layout: str) -> tuple[int, int]:
    return (-3, -2) if layout == NHWC else (-2, -1)


def _free(node: onnx.NodeProto, trace: Trace, layouts: dict[str, str]) -> bool:
    layout = layouts.get(node.output[0]) or layouts.get(node.input[0] if node.input else "", "")
    if node.op_type == "Transpose":
        return bool(layout)
    if node.op_type in ("Concat", "Split", "Softmax", "LogSoftmax"):
        return bool(layout) and _attribute(node, "axis", 0 if node.op_type == "Split" else -1) in (
            (3, -1) if layout == NHWC else (1, -3)
        )
    if node.op_type == "Slice":
        return bool(layout) and _slices_freely(node, trace, layout)
    if node.op_type == "Pad":
        return len(node.input) < 2 or trace.constant(node.input[1]) is not None
    if node.op_type in ("Resize", "Upsample"):
        position = {"Resize": 2, "Upsample": 1}[node.op_type]
        sized = len(node.input) > 3 and bool(node.input[3])
        scales = trace.constant(node.input[position]) if len(node.input) > position else None
        return not sized and (node.op_type == "Upsample" or scales is not None)
    if node.op_type.startswith("Reduce"):
        axes: Any = trace.constant(node.input[1]) if len(node.input) > 1 else _attribute(node, "axes", None)
        rank = len(trace.shapes.get(node.input[0]) or ())
        return axes is not None and bool(rank) and 0 not in {axis % rank for axis in np.ravel(axes).tolist()}
    if node.op_type not in PIXELWISE or (
        node.op_type == "ConvTranspose" and _attribute(node, "output_shape", None)
    ):
        return False
    return node.op_type not in _OPERANDS or _same_everywhere(node, trace, layout)


def _attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def _same_everywhere(node: onnx.NodeProto, trace: Trace, layout: str) -> bool:
    """Whether no constant operand differs from pixel to pixel, or from image to image."""
    for name in node.input:
        if not name or name in trace.from_image:
            continue
        shape = trace.shapes.get(name)
        value = trace.constant(name)
        if shape is None and value is not None:
            shape = value.shape
        if shape is None:
            return False
        if all(size == 1 for size in shape):
            continue
        spatial = [shape[axis] for axis in _axes(layout) if len(shape) >= -axis]
        if not layout or any(size != 1 for size in spatial) or (len(shape) == 4 and shape[0] != 1):
            return False
    return True


def _slices_freely(node: onnx.NodeProto, trace: Trace, layout: str) -> bool:
    """Whether a slice cuts channels, or borders of a fixed width."""
    if len(node.input) < 3:
        values = [_attribute(node, name, None) for name in ("starts", "ends", "axes")]
    else:
        values = [trace.constant(name) for name in node.input[1:3]]
        values.append(trace.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None)
    starts, ends, axes = (None if value is None else np.asarray(value).ravel().tolist() for value in values)
    if starts is None or ends is None:
        return False
    channel = 3 if layout == NHWC else 1
    for start, end, axis in zip(starts, ends, axes if axes is not None else range(len(starts)), strict=False):
        if axis % 4 == channel:
            continue
        if axis % 4 == 0 or not (end < 0 or end >= _END) or (start < 0 and end >= _END):
            return False
    return True
