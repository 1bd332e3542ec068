"""Whether a network returns the image or the noise, told from constant images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._types import Output
from .arrays import restore

__all__ = ["LEVELS", "contradiction", "gain", "output_kind", "reason"]

LEVELS = (-100.0, 0.0, 100.0)
"""Constant images that a network is shown, HU."""


def gain(outputs: Sequence[Any], scale: float) -> float | None:
    """By how much an output rises for each HU of constant images; None where it is not finite.

    Arguments:
        outputs: What a network made of each of :data:`LEVELS`, (1, C, H, W), in model units.
        scale: HU per model unit.
    """
    means = []
    for raw in outputs:
        rows, columns = raw.shape[-2] // 2, raw.shape[-1] // 2
        centre = raw[:, :, rows - 2 : rows + 2, columns - 2 : columns + 2] * scale
        means.append(float(np.asarray(restore(centre, np.empty(0)), dtype=np.float64).mean()))
    return float(np.polyfit(LEVELS, means, 1)[0]) if np.isfinite(means).all() else None


def output_kind(outputs: Sequence[Any], scale: float) -> Output | None:
    """What a network made of constant images tells about it; None where it tells nothing.

    Arguments:
        outputs: What it made of each of :data:`LEVELS`, (1, C, H, W), in model units.
        scale: HU per model unit.
    """
    slope = gain(outputs, scale)
    if slope is None:
        return None
    if abs(slope - 1.0) < 0.3:
        return "image"
    return "residual" if abs(slope) < 0.3 else None


def reason(kind: Output, verdict: Output | None) -> str:
    """A sentence about what a network is taken to return."""
    if verdict is None:
        why = "a probe could not tell; output='residual' says otherwise"
    else:
        why = f"constant images come out as {'such' if verdict == 'image' else 'zero'}"
    return f"the network is taken to return the {'noise' if kind == 'residual' else 'image'}: {why}"


def contradiction(stated: Output, verdict: Output) -> str:
    """A sentence about a network that seems to return something else than was said."""
    return (
        f"output={stated!r} was given, but constant images come out "
        f"{'unchanged' if verdict == 'image' else 'as zero'}, as from a network that returns the "
        f"{'image' if verdict == 'image' else 'noise'}"
    )
