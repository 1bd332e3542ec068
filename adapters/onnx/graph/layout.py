"""Where the channels are: NCHW or NHWC, for the image and for every tensor after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from .trace import Trace

__all__ = ["NCHW", "NHWC", "image_layout", "kept_last", "layouts", "to_nchw"]

NCHW = "NCHW"
NHWC = "NHWC"
# Operators whose specification puts channels second.
_CHANNELS_SECOND = {
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "DepthToSpace",
    "FusedConv",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "InstanceNormalization",
    "LpPool",
    "LRN",
    "MaxPool",
    "QLinearAveragePool",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "ReorderOutput",
    "SpaceToDepth",
}
# Operators that work along the last axis: before an optimiser, too, channels were there.
_ON_LAST = {
    "LayerNormalization",
    "MatMul",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
}
_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)


def to_nchw(array: np.ndarray, layout: str) -> np.ndarray:
    """A tensor of a known layout with its channels second."""
    return array.transpose(_TO_NCHW) if layout == NHWC and array.ndim == 4 else array


def _permutation(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())


def _channels_second(node: onnx.NodeProto) -> bool:
    return node.op_type in _CHANNELS_SECOND and not _channels_last(node)


def _channels_last(node: onnx.NodeProto) -> bool:
    """Whether a contrib operator's own domain, name or attribute says that its channels come last."""
    if node.domain == "com.ms.internal.nhwc" or (node.domain and node.op_type.startswith("Nhwc")):
        return True
    return bool(node.domain) and any(a.name == "channels_last" and a.i for a in node.attribute)


def image_layout(trace: Trace, shape: Sequence[int | None], asked: str | None) -> str:
    """The layout of the image input: as asked, by its sizes, or by what first uses it."""
    if asked is not None:
        return asked
    second, last = (size is not None and size <= 4 for size in (shape[1], shape[3]))
    if second != last:
        return NCHW if second else NHWC
    waiting, seen = [trace.image], {trace.image}
    while waiting:
        for index in trace.users.get(waiting.pop(0), ()):
            node = trace.nodes[index]
            if _channels_second(node):
                return NCHW
            turned = node.op_type == "Transpose" and _permutation(node) == _TO_NCHW
            if turned or _channels_last(node):
                return NHWC
            for name in node.output:
                if name and name not in seen:
                    seen.add(name)
                    waiting.append(name)
    return NCHW


def layouts(trace: Trace, image: str) -> dict[str, str]:
    """The layout of every tensor of rank 4 that depends on the image; absent where it is unknown."""
    known = {trace.image: image}
    for node in trace.nodes:
        sources = {known.get(name, "") for name in node.input if name in trace.from_image}
        source = sources.pop() if len(sources) == 1 else ""
        for name in node.output:
            if name not in trace.from_image:
                continue
            shape = trace.shapes.get(name)
            if shape is not None and len(shape) != 4:
                continue
            layout = _layout_after(node, name, source, trace)
            if layout:
                known[name] = layout
    for node in reversed(trace.nodes):  # what a convolution reads has its channels second
        if _channels_second(node) and node.input and node.input[0] in trace.from_image:
            known.setdefault(node.input[0], NCHW)
    return known


def kept_last(trace: Trace, known: Mapping[str, str]) -> frozenset[str]:
    """Tensors with their channels last that are given so: the network itself has them so.

    Where images come in channels first, a network turns its axes for a normalisation or a linear layer.
    What optimisers turned for operators of their own is not kept: the network knows nothing of it.

    Arguments:
        trace: The graph.
        known: Layouts of its tensors.
    """
    if known.get(trace.image) == NHWC:
        return frozenset()
    last = {name for name, layout in known.items() if layout == NHWC}
    turned: set[str] = set()
    links: list[set[str]] = []
    for node in trace.nodes:
        ends = last.intersection((*node.input, *node.output))
        if _channels_last(node) and node.op_type not in ("ReorderInput", "ReorderOutput"):
            turned |= ends  # those two have taken the network's own turn in
        elif node.op_type not in _ON_LAST and node.op_type != "Transpose":
            links.append(ends)
    size = -1
    while len(turned) != size:
        size = len(turned)
        turned.update(*(ends for ends in links if ends & turned))
    return frozenset(last - turned)


def _layout_after(node: onnx.NodeProto, name: str, source: str, trace: Trace) -> str:
    if _channels_last(node):
        return NHWC
    if node.op_type in _CHANNELS_SECOND:
        return NCHW
    if node.op_type == "Transpose":
        order = _permutation(node)
        if order == (0, 1, 2, 3):
            return source
        if (source, order) == (NHWC, _TO_NCHW):
            return NCHW
        return NHWC if (source, order) == (NCHW, _TO_NHWC) else ""
    if node.op_type == "Reshape":
        before, after = trace.shapes.get(node.input[0]), trace.shapes.get(name)
        return _reshaped(before, after, source)
    if node.op_type == "MatMul" and source == NHWC and _is_linear(node, trace):
        return NHWC
    if node.op_type in ("MatMul", "Gemm", "Einsum", "Flatten", "Squeeze", "Unsqueeze"):
        return ""
    return source


def _is_linear(node: onnx.NodeProto, trace: Trace) -> bool:
    """Whether a product mixes the last axis of what depends on the image, by stored weights."""
    return (
        node.input[0] in trace.from_image
        and node.input[1] not in trace.from_image
        and len(trace.shapes.get(node.input[1]) or ()) == 2
    )


def _reshaped(
    before: tuple[int | None, ...] | None, after: tuple[int | None, ...] | None, source: str
) -> str:
    """A reshape moves the channels only where there is one channel, or one pixel."""
    if before is None or after is None or len(before) != 4 or None in before[1:] or None in after[1:]:
        return ""
    if before[1:] == after[1:]:
        return source
    if source == NHWC and before[3] == 1 and after[1:] == (1, before[1], before[2]):
        return NCHW
    if source == NCHW and before[1] == 1 and after[1:] == (before[2], before[3], 1):
        return NHWC
    return ""
