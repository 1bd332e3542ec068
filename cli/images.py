"""The slices to analyse, checked before any long work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .console import Screen

if TYPE_CHECKING:
    from ctinv.invariance.data import CTSlice

__all__ = ["Images", "folder_names", "read_slices", "tell_left_out"]

_SMALLEST = 8
_MOST_TOLD = 20


@dataclass(frozen=True)
class Images:
    """What the user gave as input, and how to read it.

    Arguments:
        source: A file or a folder; None for the slice that ships with ctinv.
        series: Which series of a folder.
        offset: What to take off the values; None where the user said nothing.
        scale: What to multiply the values by before; None where the user said nothing.
        names: ``keep`` or ``anonymous``; None to go by the tags.
    """

    source: Path | None = None
    series: str | None = None
    offset: float | None = None
    scale: float | None = None
    names: str | None = None


def read_slices(images: Images, screen: Screen | None = None) -> list[CTSlice]:
    """Read a slice, a folder of slices, or the slice that ships with ctinv.

    Arguments:
        images: What to read.
        screen: Told which files were left out, and what is odd about the series.

    Raises:
        ImageError: Not there, not CT, not finite, too small, or values that do not look like HU.
    """
    from ctinv.adapters.errors import ImageError
    from ctinv.invariance import data

    if images.source is None:
        return [data.default_slice()]
    reading = data.load(images.source, series=images.series, offset=images.offset, scale=images.scale)
    for one in reading.slices:
        if min(one.shape) < _SMALLEST:
            raise ImageError(
                f"{one.source or 'the image'} has {one.shape[0]} x {one.shape[1]} pixels; give a slice of at "
                f"least {_SMALLEST} x {_SMALLEST}"
            )
        if doubt := one.meta.get("doubt"):
            raise ImageError(f"{one.source or 'the image'}: {doubt}")
    if screen is not None:
        for note in reading.notes:
            screen.note(f"note: {note}")
        tell_left_out(screen, reading.left_out)
    if images.names is None:
        return list(reading.slices)
    keep = {"keep_name": images.names == "keep"}
    return [replace(one, meta={**one.meta, **keep}) for one in reading.slices]


def tell_left_out(screen: Screen, left_out: Sequence[tuple[Path, str]]) -> None:
    """Name the files that were left out, each with the reason."""
    for file, reason in left_out[:_MOST_TOLD]:
        screen.note(f"left out: {reason if str(file) in reason else f'{file}: {reason}'}")
    if len(left_out) > _MOST_TOLD:
        screen.note(f"left out: {len(left_out) - _MOST_TOLD} more files")


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
