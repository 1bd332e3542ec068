"""Which output of a graph is the denoised image or the noise."""

from __future__ import annotations

import re

import onnx
from ctinv.adapters.errors import ModelError, UnsupportedModelError
from ctinv.adapters.onnx.graph.prune import Wanted
from ctinv.adapters.onnx.graph.quantisation import Quantised
from ctinv.adapters.onnx.graph.trace import Trace

from .table import FLOATS

__all__ = ["image_output"]


def image_output(
    trace: Trace, where: str, asked: str | None = None, channels: int | None = None
) -> tuple[Wanted, str]:
    """The output that is the image, and a sentence if others could be.

    Arguments:
        trace: The graph.
        where: Its path, for messages.
        asked: The output by name, or by its place as ``[1]``; None for the first that is an image made
            from the image, one with as many channels as the image before others.
        channels: Channels of the image, where they are known.

    Raises:
        ModelError: There is no output of that name.
        UnsupportedModelError: None is an image, or not the one asked for.
    """
    names = [value.name for value in trace.model.graph.output]
    fitting = [want for name in names if (want := _image(trace, Quantised(trace), name))]
    if asked is not None:
        name = _asked(asked, names, where)
        chosen = _image(trace, Quantised(trace), name)
        if chosen is None:
            raise UnsupportedModelError(
                f"{where}: output {name!r} is no float image (N, C, H, W) made from the input "
                f"{trace.image!r}; outputs that are: {', '.join(w.tensor for w in fitting) or 'none'}"
            )
        return chosen, ""
    if not fitting:
        raise UnsupportedModelError(
            f"{where}: no output is a float image (N, C, H, W) made from the input {trace.image!r}; "
            f"its outputs are: {', '.join(names)}"
        )
    fitting.sort(key=lambda want: channels not in (None, *(trace.shapes.get(want.tensor) or ())[1:4:2]))
    notice = ""
    if len(fitting) > 1:
        others = ", ".join(want.tensor for want in fitting[1:])
        notice = (
            f"the network has several image outputs; {fitting[0].tensor!r} is taken (others: {others}; "
            "output_tensor chooses)"
        )
    return fitting[0], notice


def _asked(text: str, names: list[str], where: str) -> str:
    """The name of an output that is given by name, by place, or by name in brackets."""
    inner = text.strip().removeprefix("[").removesuffix("]").strip("\"' ")
    if text in names or inner in names:
        return text if text in names else inner
    if re.fullmatch(r"\[\s*-?\d+\s*\]", text.strip()) and -len(names) <= int(inner) < len(names):
        return names[int(inner)]
    listing = ", ".join(f"[{place}] {name}" for place, name in enumerate(names))
    raise ModelError(f"{where}: no output is {text!r}; its outputs are: {listing}")


def _image(trace: Trace, quantised: Quantised, name: str) -> Wanted | None:
    kind, shape = trace.types.get(name, onnx.TensorProto.FLOAT), trace.shapes.get(name)
    if name not in trace.from_image or (shape is not None and len(shape) != 4):
        return None
    want = quantised.wanted(name)
    return want if want is not None and (want.scale or kind in FLOATS) else None
