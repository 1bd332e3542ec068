"""Small files that would fill the memory, or lead to others: refused by what they announce."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ctinv.adapters.errors import ImageError

__all__ = ["MOST_VALUES", "file_beside", "inflated_size", "refuse_size"]

MOST_VALUES = 2**31
"""More values than this in one file are taken for a broken header."""

_HARMLESS = 2**27  # bytes that any file may unfold into
_DENSEST = 200  # bytes unfolded from one; CT packs to a third, and an empty slice to a thousandth
_WORKING = 16  # bytes that reading takes for each value: as stored, as float64, and as HU
_CHUNK = 1 << 20


def file_beside(path: Path, name: str) -> Path:
    """The file that a header names for its data.

    A header may come from anybody; it must not have files read that lie elsewhere.

    Arguments:
        path: The header's file.
        name: What it names.

    Raises:
        ImageError: That lies neither in the header's folder nor below it.

    Example:
        >>> file_beside(Path("ct/a.mhd"), "raw/a.raw").as_posix()
        'ct/raw/a.raw'
    """
    inner = Path(os.path.normpath(name))
    if inner.is_absolute() or ".." in inner.parts:
        raise ImageError(
            f"{path} names {name}, which lies outside its folder; put the data beside it and name it so"
        )
    return path.parent / inner


def refuse_size(path: Path, shape: Sequence[Any], itemsize: int = 1, held: int | None = None) -> None:
    """Refuse a file whose header announces what it cannot hold, or what this machine cannot.

    Arguments:
        path: The file.
        shape: Sizes of its axes, as announced.
        itemsize: Bytes of one value once it is unpacked.
        held: Bytes that hold them; None for the size of the file.

    Raises:
        ImageError: No values, or too many.
    """
    sizes = [int(size) for size in shape]
    count = int(np.prod(sizes, dtype=object)) if sizes else 0
    told = f"{path} announces {' x '.join(map(str, sizes))} values"
    if not 0 < count <= MOST_VALUES or min(sizes) < 1:
        raise ImageError(f"{told}; its header is broken")
    held = path.stat().st_size if held is None else held
    if count * itemsize > max(_HARMLESS, _DENSEST * held):
        raise ImageError(f"{told}, but holds {held} bytes only; its header is broken")
    free = int(psutil.virtual_memory().available)
    if count * _WORKING > max(free, _HARMLESS):
        raise ImageError(
            f"{told}, which take {count * _WORKING / 1e9:.1f} GB to read where {free / 1e9:.1f} GB are free; "
            "give a part of it"
        )


def inflated_size(path: Path, start: int, most: int, kind: Callable[[], Any] | None = None) -> int:
    """Bytes that the packed part of a file unfolds into, counted no further than a limit, in little memory.

    Arguments:
        path: The file.
        start: Where the packed part begins.
        most: Count no further than this.
        kind: Makes a decompressor as those of ``zlib`` and ``bz2``; None for one of gzip or zlib.

    Returns:
        The bytes; more than ``most`` where there are more.
    """
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if kind is None else kind()
    count = 0
    with path.open("rb") as file:
        file.seek(start)
        while count <= most and not unpack.eof:
            packed = getattr(unpack, "unconsumed_tail", b"")
            if not packed and getattr(unpack, "needs_input", True):
                packed = file.read(_CHUNK)
                if not packed:
                    break
            count += len(unpack.decompress(packed, _CHUNK))
    return count
