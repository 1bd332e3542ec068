"""Slices that stay on disk: found and put in order first, read one by one when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ctinv.adapters.errors import ImageError

from .order import notes_on, sort_slices
from .read import choose_series
from .series import Series, read_file
from .slices import CTSlice

__all__ = ["StoredReading", "StoredSlice", "in_memory", "stored"]

_Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class StoredSlice:
    """A slice that takes no memory until it is read.

    Arguments:
        header: All that is known of it but its pixels, which are zeros here.
        digest: SHA-256 (hex) of its pixels.
        fetch: Reads it.
    """

    header: CTSlice
    digest: str
    fetch: Callable[[], CTSlice]

    @property
    def name(self) -> str:
        """What the slice is called in everything that is written, see :attr:`CTSlice.name`."""
        return self.header.called(self.digest)

    def read(self) -> CTSlice:
        """The slice with its pixels.

        Raises:
            ImageError: It cannot be read any more, or its pixels are others by now.
        """
        one = replace(self.fetch(), meta=self.header.meta)
        if one.digest != self.digest:
            raise ImageError(
                f"{self.header.source or 'the image'} has changed since it was found; start again"
            )
        return one

    def named(self, keep: bool) -> StoredSlice:
        """The same slice, called by its file's name or by its hash."""
        return replace(self, header=replace(self.header, meta={**self.header.meta, "keep_name": keep}))


@dataclass(frozen=True)
class StoredReading:
    """What came of looking through a series; the fields are those of :class:`Reading`."""

    slices: tuple[StoredSlice, ...]
    left_out: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


def in_memory(one: CTSlice) -> StoredSlice:
    """A slice that is here already, in the same form."""
    return StoredSlice(one, one.digest, lambda: one)


def stored(
    path: str | Path,
    *,
    series: str | None = None,
    offset: float | None = None,
    scale: float | None = None,
    progress: _Progress | None = None,
) -> StoredReading:
    """The slices of :func:`~ctinv.invariance.data.io.read.load`, in the same order, without their pixels.

    Each file is read once to check it and to name its slices; memory is that of the largest file.

    Raises:
        ImageError: See :func:`~ctinv.invariance.data.io.read.read`.
    """
    chosen, skipped = choose_series(path, series=series, offset=offset, scale=scale)
    left_out = list(skipped)
    files = _Files(chosen)
    light: list[CTSlice] = []
    slices: dict[int, StoredSlice] = {}
    for file, number, one in chosen.walk(left_out, progress):
        header = _without_pixels(one)
        light.append(header)
        slices[id(header)] = StoredSlice(header, one.digest, files.fetcher(file, number))
    if not light:
        raise ImageError(left_out[-1][1])
    ordered = sort_slices(light)
    return StoredReading(tuple(slices[id(one)] for one in ordered), tuple(left_out), tuple(notes_on(ordered)))


class _Files:
    """Reads slices of files; of a file that holds several, it keeps the last one read."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self._last: tuple[Path, list[CTSlice]] | None = None

    def fetcher(self, file: Path, number: int) -> Callable[[], CTSlice]:
        def fetch() -> CTSlice:
            parts = self._parts(file)
            if number >= len(parts):
                raise ImageError(f"{file} has changed since it was found; start again")
            return parts[number]

        return fetch

    def _parts(self, file: Path) -> list[CTSlice]:
        if self._last is not None and self._last[0] == file:
            return self._last[1]
        self._last = None  # before the next one is read: never two at a time
        parts = read_file(file, self._series.offset, self._series.scale)
        if len(parts) > 1:
            self._last = file, parts
        return parts


def _without_pixels(one: CTSlice) -> CTSlice:
    shape = one.shape
    nothing = np.broadcast_to(np.float32(0), shape)
    return replace(one, hu=nothing, valid=np.broadcast_to(np.bool_(True), shape))
