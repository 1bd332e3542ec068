"""The slices to analyse, checked before any long work."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .console import Screen

if TYPE_CHECKING:
    from ctinv.invariance.data import CTSlice, Reading
    from ctinv.invariance.data.io.stored import StoredReading, StoredSlice

__all__ = ["Images", "find_slices", "read_slices", "tell_left_out"]

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
    from ctinv.invariance import data

    if images.source is None:
        return [data.default_slice()]
    reading = data.load(images.source, series=images.series, offset=images.offset, scale=images.scale)
    for one in reading.slices:
        _check(one)
    _tell(screen, reading)
    if images.names is None:
        return list(reading.slices)
    keep = {"keep_name": images.names == "keep"}
    return [replace(one, meta={**one.meta, **keep}) for one in reading.slices]


def find_slices(images: Images, screen: Screen | None = None) -> list[StoredSlice]:
    """The slices of :func:`read_slices`, checked, but left on disk until they are needed.

    Raises:
        ImageError: As there.
    """
    from ctinv.invariance import data
    from ctinv.invariance.data.io.stored import in_memory, stored

    if images.source is None:
        return [in_memory(data.default_slice())]
    with contextlib.nullcontext() if screen is None else screen.progress() as progress:
        reading = stored(
            images.source,
            series=images.series,
            offset=images.offset,
            scale=images.scale,
            progress=progress,
        )
    for one in reading.slices:
        _check(one.header)
    _tell(screen, reading)
    if images.names is None:
        return list(reading.slices)
    return [one.named(images.names == "keep") for one in reading.slices]


def _check(one: CTSlice) -> None:
    from ctinv.adapters.errors import ImageError

    if min(one.shape) < _SMALLEST:
        raise ImageError(
            f"{one.source or 'the image'} has {one.shape[0]} x {one.shape[1]} pixels; give a slice of at "
            f"least {_SMALLEST} x {_SMALLEST}"
        )
    if doubt := one.meta.get("doubt"):
        raise ImageError(f"{one.source or 'the image'}: {doubt}")


def _tell(screen: Screen | None, reading: Reading | StoredReading) -> None:
    if screen is not None:
        for note in reading.notes:
            screen.note(f"note: {note}")
        tell_left_out(screen, reading.left_out)


def tell_left_out(screen: Screen, left_out: Sequence[tuple[Path, str]]) -> None:
    """Name the files that were left out, each with the reason."""
    for file, reason in left_out[:_MOST_TOLD]:
        screen.note(f"left out: {reason if str(file) in reason else f'{file}: {reason}'}")
    if len(left_out) > _MOST_TOLD:
        screen.note(f"left out: {len(left_out) - _MOST_TOLD} more files")
