"""The slices to analyse, checked before any long work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctinv.invariance.data import CTSlice

__all__ = ["folder_names", "read_slices"]

_SMALLEST = 8


def read_slices(source: Path | None, series: str | None = None) -> list[CTSlice]:
    """Read a slice, a folder of slices, or the slice that ships with ctinv.

    Raises:
        ImageError: Not there, not CT, not finite, too small.
    """
    import numpy as np
    from ctinv.adapters.errors import ImageError
    from ctinv.invariance import data

    slices = [data.default_slice()] if source is None else data.read(source, series=series)
    for one in slices:
        bad = int(np.size(one.hu) - np.isfinite(one.hu).sum())
        if bad:
            raise ImageError(
                f"{one.source or 'the image'} has {bad} pixels that are not finite numbers; "
                "replace them, for example by -1024 HU"
            )
        if min(one.shape) < _SMALLEST:
            raise ImageError(
                f"{one.source or 'the image'} has {one.shape[0]} x {one.shape[1]} pixels; give a slice of at "
                f"least {_SMALLEST} x {_SMALLEST}"
            )
    return slices


def folder_names(names: Sequence[str]) -> list[str]:
    """Names that can be folders: safe characters only, all different.

    Example:
        >>> folder_names(["/conv7/Conv", "conv7", "conv7"])
        ['conv7_Conv', 'conv7', 'conv7-2']
    """
    chosen: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.@+-]+", "_", name).strip("_.") or "unnamed"
        candidate, count = plain, 1
        while candidate.lower() in {other.lower() for other in chosen}:
            count += 1
            candidate = f"{plain}-{count}"
        chosen.append(candidate)
    return chosen
