"""From what the user typed to a denoiser with known units."""

from __future__ import annotations

import fnmatch
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen

if TYPE_CHECKING:
    import numpy as np
    from ctinv.adapters import Denoiser
    from ctinv.invariance.data import CTSlice
    from ctinv.invariance.data.io.stored import StoredSlice
    from numpy.typing import NDArray

__all__ = ["ModelSpec", "distinct", "distinct_in_each", "open_model", "settle_units", "some_slices"]

_CALIBRATION_SLICES = 8


@dataclass(frozen=True)
class ModelSpec:
    """The model options of a command, as given."""

    model: str
    intensity: str = "auto"
    output: str = "auto"
    device: str = "auto"
    feed: tuple[tuple[str, str], ...] = ()
    channels: int | None = None
    output_tensor: str | None = None
    input_name: str | None = None
    layout: str | None = None


def open_model(spec: ModelSpec) -> Denoiser:
    """Load an ONNX file, a denoiser of the zoo, or a callable that returns a module.

    Raises:
        CtinvError: It cannot be loaded.
    """
    from ctinv import adapters

    intensity = None if spec.intensity == "auto" else spec.intensity
    output: Any = None if spec.output == "auto" else spec.output
    if re.fullmatch(r"[\w-]+", spec.model) and not Path(spec.model).exists():
        from ctinv import zoo

        if (name := _zoo_name(spec.model)) is not None:
            about: dict[str, Any] = dict(zoo.metadata(name))
            denoiser: Denoiser = adapters.wrap(
                zoo.network(name),
                intensity=intensity or about["ctinv.intensity"],
                output=output or about["ctinv.output"],
                name=name,
                device=spec.device,
                channels=spec.channels or 1,
                output_tensor=spec.output_tensor,
            )
            return denoiser
    if ":" in spec.model and "" not in sys.path:
        sys.path.insert(0, "")  # as python -m does: the user's own module lies where the user is
    feed = {key: _number(text) for key, text in spec.feed}
    loaded: Denoiser = adapters.load(
        spec.model,
        intensity=intensity,
        output=output,
        device=spec.device,
        feed=feed or None,
        channels=spec.channels,
        output_tensor=spec.output_tensor,
        input_name=spec.input_name,
        layout=spec.layout,
    )
    return loaded


def distinct(denoiser: Denoiser, layers: Sequence[str]) -> list[str]:
    """The layers as the user calls them, each once, in the order given.

    A name that is no layer may be a pattern, such as ``conv*``, or ``all``: it stands for the layers
    that can be read, in their own order.

    Raises:
        LayerError: One of them does not exist or cannot be read, or a pattern fits none.
    """
    first: dict[str, str] = {}
    for name in layers:
        for match in _matching(denoiser, name):
            first.setdefault(denoiser.resolve(match).name, match)
    return list(first.values())


def distinct_in_each(denoisers: Sequence[Denoiser], layers: Sequence[str], screen: Screen) -> list[list[str]]:
    """The layers of each of several models; what one model lacks, another must have.

    Raises:
        LayerError: No model has a layer of some name, or a model has none of them.
    """
    from ctinv.adapters.errors import LayerError

    refusals: dict[str, list[tuple[str, LayerError]]] = {name: [] for name in layers}
    names: list[list[str]] = []
    for denoiser in denoisers:
        own = []
        for name, refused in refusals.items():
            try:
                distinct(denoiser, [name])
                own.append(name)
            except LayerError as error:
                refused.append((denoiser.name, error))
                if len(refused) == len(denoisers):
                    raise
        if not own:
            raise refusals[layers[0]][-1][1]
        names.append(distinct(denoiser, own))
    for model, refusal in (one for refused in refusals.values() for one in refused):
        screen.note(f"note: left out of {model}: {refusal}")
    return names


def _matching(denoiser: Denoiser, name: str) -> list[str]:
    from ctinv.adapters.errors import LayerError

    every = name == "all"
    if not every and not any(sign in name for sign in "*?["):
        return [name]
    try:
        denoiser.resolve(name)  # ONNX allows any character in a name
        return [name]
    except LayerError:
        pattern = "*" if every else name
    readable = [layer for layer in denoiser.layers if layer.tappable]
    fitting = [
        layer.name
        for layer in readable
        if any(fnmatch.fnmatchcase(called, pattern) for called in (layer.name, *layer.aliases))
    ]
    if not fitting:
        known = ", ".join(layer.name for layer in readable[:8])
        raise LayerError(f"no layer of {denoiser.name} fits {name!r}; there are {known}, and so on")
    return fitting


def _zoo_name(given: str) -> str | None:
    """The zoo's id for a bare word; None where a plug-in of the adapters claims the word.

    Raises:
        ModelError: Nobody knows the word; the message lists the zoo.
    """
    from importlib.metadata import entry_points

    from ctinv.adapters.errors import ModelError
    from ctinv.adapters.loading import ENTRY_POINTS
    from ctinv.zoo.registry import find

    try:
        return find(given).name
    except ModelError:
        if entry_points(group=ENTRY_POINTS):
            return None
        raise


def settle_units(denoiser: Denoiser, spec: ModelSpec, slices: Sequence[CTSlice], screen: Screen) -> str:
    """Make sure the model's units are known; where nothing says so, find out on CT.

    Arguments:
        denoiser: Its intensity is set where it was unknown.
        spec: What the user gave.
        slices: The images to be analysed; the slice that ships with ctinv is used beside them.
        screen: Shows the progress; the choice itself is among the denoiser's notices.

    Returns:
        How the units were found, for the report.

    Raises:
        IntensityError: No convention stands out.
    """
    _tell_texture(denoiser, slices)
    if spec.intensity != "auto":
        return "the --intensity option"
    if denoiser.intensity is not None:
        return "the model's own metadata"
    import numpy as np
    from ctinv.invariance.data import default_slice

    images = [s.hu for s in [*slices[:_CALIBRATION_SLICES], default_slice()]]
    height, width = min(i.shape[0] for i in images), min(i.shape[1] for i in images)
    stack = np.stack([_centre(image, height, width) for image in images])[:, None]
    with screen.progress() as progress:
        calibration = denoiser.calibrate(stack, progress=progress)
    return f"calibration on CT; the next convention is {math.exp(calibration.margin):.1f} times worse"


def some_slices(slices: Sequence[StoredSlice]) -> list[CTSlice]:
    """A few of many slices, evenly spaced, for :func:`settle_units`; the same few for every shard."""
    step = max(1, -(-len(slices) // _CALIBRATION_SLICES))
    return [one.read() for one in slices[::step]]


def _tell_texture(denoiser: Denoiser, slices: Sequence[CTSlice]) -> None:
    """Add to the denoiser's notices where a network of the zoo sees noise that it is not for."""
    from ctinv.zoo.registry import names, unlike_training

    if denoiser.name in names():
        told = (unlike_training(denoiser.name, one.hu) for one in slices)
        note = next((text for text in told if text), None)
        if note and note not in denoiser.notices:
            denoiser.notices.append(note)


def _centre(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
