"""The slices to analyse, checked before any long work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctinv.invariance.data import CTSlice

__all__ = ["check_sizes", "folder_names", "read_for_fitting", "read_slices"]


def read_slices(source: Path | None, series: str | None = None) -> list[CTSlice]:
    """Read a slice, a folder of slices, or the slice that ships with ctinv.

    Raises:
        ImageError: Not there, not CT, not finite.
    """
    from ctinv.invariance import data

    slices = [data.default_slice()] if source is None else data.read(source, series=series)
    _check_finite(slices)
    return slices


def read_for_fitting(folder: Path | None) -> list[CTSlice] | None:
    """Every CT series under a folder; None, the library's own choice, where no folder is given.

    Raises:
        ImageError: Not there, no CT in it, not finite.
    """
    from ctinv.invariance.data import find_series, read

    if folder is None:
        return None
    series = find_series(folder).series if folder.is_dir() else ()
    slices = [one for each in series for one in each.read()] if series else read(folder)
    _check_finite(slices)
    return slices


def _check_finite(slices: Sequence[CTSlice]) -> None:
    import numpy as np
    from ctinv.adapters.errors import ImageError

    for one in slices:
        bad = int(np.size(one.hu) - np.isfinite(one.hu).sum())
        if bad:
            raise ImageError(
                f"{one.source or 'the image'} has {bad} pixels that are not finite numbers; "
                "replace them, for example by -1024 HU"
            )


def check_sizes(slices: Sequence[CTSlice], patch: int) -> None:
    """Make sure that every slice holds at least one patch.

    Raises:
        ImageError: A slice is smaller than that.
    """
    from ctinv.adapters.errors import ImageError

    for one in slices:
        if min(one.shape) < patch:
            raise ImageError(
                f"{one.source or 'the image'} has {one.shape[0]} x {one.shape[1]} pixels; the preset needs "
                f"at least {patch} x {patch}: give a larger slice, or a preset with smaller patches"
            )


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
