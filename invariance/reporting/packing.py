"""Images in HU as text that a page can hold and its scripts can read back."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image

__all__ = ["BUDGET", "Packed", "Picture", "pack"]

BUDGET = 6_500_000
"""Characters that the images of one page may take; with the rest a page stays below 10 MB."""

_FINEST = {"ct": 2.0**-3, "map": 2.0**-6, "difference": 2.0**-6}  # HU
_COARSER = (1.0, 2.0, 4.0, 8.0)
_MOST = 32767


@dataclass(frozen=True, eq=False)
class Picture:
    """One image of a viewer.

    Arguments:
        key: Its name for the scripts.
        title: What the reader sees it called.
        kind: ``ct`` for HU with a grey window, ``map`` for spreads from 0 HU up, ``difference`` for
            changes of either sign.
        pixels: (H, W), HU.
        sample: Its number where it is a sample, from 1 on.
    """

    key: str
    title: str
    kind: str
    pixels: Image
    sample: int | None = None


@dataclass(frozen=True)
class Packed:
    """Images as JSON can hold them, and what that cost.

    Arguments:
        images: For each its key, title, kind, step and text.
        step: HU from one value of a CT image to the next; values are exact to half of it.
        left_out: Samples that there was no room for.
        shrink: Pixels of the image along each side that became one.
    """

    images: tuple[Mapping[str, Any], ...]
    step: float
    left_out: int = 0
    shrink: int = 1


def pack(pictures: Sequence[Picture], budget: int = BUDGET) -> Packed:
    """Pack images to 16 bit each, as finely as there is room for.

    A value is a whole number of steps: an eighth of a HU for CT, a 64th for maps and differences. Where all
    together would take more than the budget, steps become up to 8 times as wide; where that is not enough,
    samples are left out down to one; after that pixels are averaged, which makes room for samples again.
    Every CT image but the first is stored as its difference from the first.

    Each text is base64 of raw DEFLATE of the low bytes of all pixels, row by row, and then of the high
    bytes. A pixel's 16 bit hold, in zigzag order (0, -1, 1, -2, ...), the difference from the pixel on its
    left (``delta``), or from nothing.

    Arguments:
        pictures: Of one size; the first is the analysed image.
        budget: Characters.

    Raises:
        ValueError: There are no pictures.
    """
    if not pictures:
        raise ValueError("there are no pictures to pack")
    left, shrink = list(pictures), 1
    while True:
        count = sum(p.sample is not None for p in left)
        for samples in range(count, min(count, 1) - 1, -1):
            some = [p for p in left if p.sample is None or p.sample <= samples]
            for coarser in _COARSER:
                packed = _packed(some, coarser)
                over = sum(len(image["data"]) for image in packed.images) - budget
                if over <= 0:
                    return replace(packed, left_out=_samples(pictures) - samples, shrink=shrink)
                if over > _most_saved(some, coarser):
                    break
        if min(left[0].pixels.shape) < 2:
            return replace(packed, left_out=_samples(pictures) - samples, shrink=shrink)
        left, shrink = [replace(p, pixels=_halved(p.pixels)) for p in left], 2 * shrink


def _samples(pictures: Sequence[Picture]) -> int:
    return sum(p.sample is not None for p in pictures)


def _most_saved(pictures: Sequence[Picture], coarser: float) -> float:
    """Characters that wider steps can save at most: a bit per pixel each time that they double."""
    bits = math.log2(_COARSER[-1] / coarser) * sum(p.pixels.size for p in pictures)
    return 1.02 * bits / 8 * 4 / 3


def _packed(pictures: Sequence[Picture], coarser: float) -> Packed:
    first = pictures[0].key
    steps = {
        kind: _step([p.pixels for p in pictures if p.kind == kind], fine * coarser)
        for kind, fine in _FINEST.items()
    }
    base = _whole(pictures[0].pixels, steps["ct"])
    images = []
    for p in pictures:
        whole, against = _whole(p.pixels, steps[p.kind]), p.kind == "ct" and p.key != first
        text, delta = _text(whole - base if against else whole)
        images.append(
            {
                "key": p.key,
                "title": p.title,
                "kind": p.kind,
                "sample": p.sample,
                "step": steps[p.kind],
                "base": first if against else None,
                "delta": delta,
                "data": text,
            }
        )
    return Packed(tuple(images), steps["ct"])


def _step(images: Sequence[Image], finest: float) -> float:
    """The finest power of two in which all values are 16-bit numbers."""
    most = max((float(np.max(np.abs(image))) for image in images), default=0.0)
    needed = most / _MOST
    return max(finest, 2.0 ** math.ceil(math.log2(needed))) if needed > 0 else finest


def _whole(image: Image, step: float) -> npt.NDArray[np.int32]:
    return np.round(np.asarray(image, dtype=np.float64) / step).astype(np.int32)


def _text(whole: npt.NDArray[np.int32]) -> tuple[str, bool]:
    """The shorter of the two ways to write it, by a guess, and whether that is the one by differences."""
    ways = [_planes(whole), _planes(np.diff(whole, axis=1, prepend=0))]
    by_differences = _bits(ways[1]) < _bits(ways[0])
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflated = packer.compress(ways[by_differences].tobytes()) + packer.flush()
    return base64.b64encode(deflated).decode("ascii"), by_differences


def _planes(values: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """The low and the high bytes, (2, pixels)."""
    wrapped = values.astype(np.int16)  # differences wrap round, and so does their sum
    zigzag = ((wrapped << 1) ^ (wrapped >> 15)).astype("<u2").ravel()
    return np.stack([zigzag & 255, zigzag >> 8]).astype(np.uint8)


def _bits(planes: npt.NDArray[np.uint8]) -> float:
    """Entropy of the bytes of each plane, as if they knew nothing of each other."""
    total = 0.0
    for plane in planes:
        share = np.bincount(plane, minlength=256) / plane.size
        share = share[share > 0]
        total -= plane.size * float((share * np.log2(share)).sum())
    return total


def _halved(image: Image) -> Image:
    height, width = (size - size % 2 for size in image.shape)
    blocks = image[:height, :width].reshape(height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((1, 3)), dtype=np.float32)
