"""Which output of a graph is the denoised image or the noise."""

from __future__ import annotations

import onnx
from ctinv.adapters.errors import UnsupportedModelError
from ctinv.adapters.onnx.graph.prune import Wanted
from ctinv.adapters.onnx.graph.quantisation import Quantised
from ctinv.adapters.onnx.graph.trace import Trace

from .table import FLOATS

__all__ = ["image_output"]


def image_output(trace: Trace, where: str) -> tuple[Wanted, str]:
    """The first output that is an image and depends on the image, and a sentence if others could be.

    Raises:
        UnsupportedModelError: There is none.
    """
    quantised = Quantised(trace)
    names = [value.name for value in trace.model.graph.output]
    fitting = []
    for name in names:
        kind = trace.types.get(name, onnx.TensorProto.FLOAT)
        shape = trace.shapes.get(name)
        if name in trace.from_image and (shape is None or len(shape) == 4):
            want = quantised.wanted(name)
            if want is not None and (want.scale or kind in FLOATS):
                fitting.append(want)
    if not fitting:
        raise UnsupportedModelError(
            f"{where}: no output is a float image (N, C, H, W) made from the input {trace.image!r}; "
            f"its outputs are: {', '.join(names)}"
        )
    notice = ""
    if len(fitting) > 1:
        others = ", ".join(want.tensor for want in fitting[1:])
        notice = f"the network has several image outputs; {fitting[0].tensor!r} is taken (others: {others})"
    return fitting[0], notice
