"""From what the user typed to a denoiser with known units."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .console import Screen

if TYPE_CHECKING:
    from ctinv.adapters import Denoiser
    from ctinv.invariance.data import CTSlice

__all__ = ["ModelSpec", "open_model", "settle_units"]

_CALIBRATION_SLICES = 8


@dataclass(frozen=True)
class ModelSpec:
    """The model options of a command, as given."""

    model: str
    intensity: str = "auto"
    output: str = "auto"
    device: str = "auto"
    feed: tuple[tuple[str, str], ...] = ()


def open_model(spec: ModelSpec) -> Denoiser:
    """Load an ONNX file, a denoiser of the zoo, or a callable that returns a module.

    Raises:
        CtinvError: It cannot be loaded.
    """
    from ctinv import adapters

    intensity = None if spec.intensity == "auto" else spec.intensity
    output = None if spec.output == "auto" else spec.output
    if re.fullmatch(r"[\w-]+", spec.model) and not Path(spec.model).exists():
        from ctinv import zoo

        if (name := _zoo_name(spec.model)) is not None:
            about = zoo.metadata(name)
            denoiser: Denoiser = adapters.wrap(
                zoo.network(name),
                intensity=intensity or about["ctinv.intensity"],
                output=output or about["ctinv.output"],
                name=name,
                device=spec.device,
            )
            return denoiser
    if ":" in spec.model and "" not in sys.path:
        sys.path.insert(0, "")  # as python -m does: the user's own module lies where the user is
    feed = {key: _number(text) for key, text in spec.feed}
    loaded: Denoiser = adapters.load(
        spec.model, intensity=intensity, output=output, device=spec.device, feed=feed or None
    )
    return loaded


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
        screen: Told the choice and its margin.

    Returns:
        How the units were found, for the report.

    Raises:
        IntensityError: No convention stands out.
    """
    if spec.intensity != "auto":
        return "the --intensity option"
    if denoiser.intensity is not None:
        return "the model's own metadata"
    import numpy as np
    from ctinv.invariance.data import default_slice

    images = [s.hu for s in [*slices[:_CALIBRATION_SLICES], default_slice()]]
    height, width = min(i.shape[0] for i in images), min(i.shape[1] for i in images)
    found = denoiser.calibrate(np.stack([_centre(i, height, width) for i in images])[:, None])
    screen.note(f"intensity: {found.intensity} (margin {found.margin:.2f}); output: {found.output}")
    return f"calibration on {len(images)} CT slices, margin {found.margin:.2f}"


def _centre(image: object, height: int, width: int) -> object:
    import numpy as np

    array = np.asarray(image)
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top : top + height, left : left + width]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
