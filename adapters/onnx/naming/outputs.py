"""Which output of a graph is the denoised image or the noise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from ctinv.adapters.errors import CtinvError, ModelError, UnsupportedModelError
from ctinv.adapters.onnx.graph.prune import Wanted
from ctinv.adapters.onnx.graph.quantisation import Quantised
from ctinv.adapters.onnx.graph.trace import Trace
from ctinv.adapters.output_kind import gain

from .table import FLOATS

__all__ = ["choose_output", "image_outputs"]

Read = Callable[[np.ndarray, Sequence[Wanted]], Mapping[Wanted, np.ndarray]]

# Sides of the images that are shown to a graph that takes any.
_SIDES = (64, 128, 256)
# How far the gain of an image on constant images may be from 1; of several, one is near and the rest far.
_ALIKE, _NEAR, _FAR = 0.3, 0.05, 0.15


def image_outputs(trace: Trace, where: str, asked: str | None = None) -> tuple[Wanted, ...]:
    """The outputs that may be the image; one where it was asked for.

    Arguments:
        trace: The graph.
        where: Its path, for messages.
        asked: The output by name, or by its place as ``[1]``; None for all that are images made from the
            image.

    Raises:
        ModelError: There is no output of that name.
        UnsupportedModelError: None is an image, or not the one asked for.
    """
    names = list(dict.fromkeys(value.name for value in trace.model.graph.output))
    fitting = [want for name in names if (want := _image(trace, Quantised(trace), name))]
    fitting = [want for want in fitting if not _is_input(trace, want.tensor)] or fitting
    if asked is not None:
        name = _asked(asked, [value.name for value in trace.model.graph.output], where)
        chosen = _image(trace, Quantised(trace), name)
        if chosen is None:
            raise UnsupportedModelError(
                f"{where}: output {name!r} is no float image (N, C, H, W) made from the input "
                f"{trace.image!r}; outputs that are: {', '.join(w.tensor for w in fitting) or 'none'}"
            )
        return (chosen,)
    if not fitting:
        raise UnsupportedModelError(
            f"{where}: no output is a float image (N, C, H, W) made from the input {trace.image!r}; "
            f"its outputs are: {', '.join(names)}"
        )
    return tuple(fitting)


def choose_output(
    wants: Sequence[Wanted],
    read: Read,
    fixed: tuple[int | None, ...],
    channels: int,
    levels: Sequence[Sequence[float]],
    where: str,
) -> tuple[Wanted, str]:
    """The one output of several that is the image, told by what constant images become in each.

    Arguments:
        wants: The outputs that may be the image.
        read: From images (N, C, H, W) in model units to tensors.
        fixed: Height and width that the graph takes, None where any.
        channels: Channels of an image.
        levels: Series of values of constant images, model units, the likeliest first; empty where none
            would tell, as where the network returns noise.
        where: The file, for messages.

    Returns:
        The output, and a sentence that says why.

    Raises:
        UnsupportedModelError: None stands out.
    """
    left = list(wants)
    for side in _SIDES:
        size = (fixed[0] or side, fixed[1] or side)
        blank = np.zeros((1, channels, *size), dtype=np.float32)
        try:
            shapes = {want: value.shape for want, value in read(blank, wants).items()}
        except CtinvError:
            continue
        whole = [want for want in left if len(shapes[want]) == 4 and shapes[want][-2:] == size]
        left = [want for want in whole if shapes[want][1] in (1, channels)] or left
        if len(left) == 1:
            return left[0], _chosen(left[0], wants, "it alone has the image's size and channels")
        for series in levels:
            raw = [read(blank + np.float32(level), left) for level in series]
            span = float(series[-1] - series[0]) / 200.0
            off = {want: _off([one[want] / span for one in raw]) for want in left}
            alike = sorted((want for want in left if off[want] < _ALIKE), key=lambda want: off[want])
            second = off[alike[1]] if len(alike) > 1 else np.inf
            if alike and (len(alike) == 1 or (off[alike[0]] < _NEAR and second > _FAR)):
                return alike[0], _chosen(alike[0], wants, "constant images come out of it alone as such")
            if alike and all(np.array_equal(one[alike[0]], one[want]) for one in raw for want in alike):
                return alike[0], _chosen(alike[0], wants, "others like it return the same")
        break
    listing = ", ".join(want.tensor for want in wants)
    raise UnsupportedModelError(
        f"{where}: {len(wants)} outputs could be the image: {listing}; say which it is with "
        f"output_tensor={left[0].tensor!r} or the like"
    )


def _off(outputs: Sequence[np.ndarray]) -> float:
    """How far the gain of an output is from that of an image."""
    slope = gain(outputs, 1.0)
    return np.inf if slope is None else abs(slope - 1.0)


def _chosen(want: Wanted, wants: Sequence[Wanted], why: str) -> str:
    others = ", ".join(other.tensor for other in wants if other is not want)
    return (
        f"the network has several image outputs; {want.tensor!r} is taken, as {why} (others: {others}; "
        "output_tensor chooses)"
    )


def _asked(text: str, names: list[str], where: str) -> str:
    """The name of an output that is given by name, by place, or by name in brackets."""
    inner = text.strip().removeprefix("[").removesuffix("]").strip("\"' ")
    if text in names or inner in names:
        return text if text in names else inner
    if re.fullmatch(r"\[\s*-?\d+\s*\]", text.strip()) and -len(names) <= int(inner) < len(names):
        return names[int(inner)]
    listing = ", ".join(f"[{place}] {name}" for place, name in enumerate(names))
    raise ModelError(f"{where}: no output is {text!r}; its outputs are: {listing}")


def _is_input(trace: Trace, name: str) -> bool:
    """Whether a tensor is the image that was given, handed through."""
    while name != trace.image:
        index = trace.producer.get(name)
        if index is None or trace.nodes[index].op_type not in ("Cast", "Identity"):
            return False
        name = trace.nodes[index].input[0]
    return True


def _image(trace: Trace, quantised: Quantised, name: str) -> Wanted | None:
    kind, shape = trace.types.get(name, onnx.TensorProto.FLOAT), trace.shapes.get(name)
    if name not in trace.from_image or (shape is not None and len(shape) != 4):
        return None
    want = quantised.wanted(name)
    return want if want is not None and (want.scale or kind in FLOATS) else None
