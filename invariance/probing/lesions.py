"""Lesions for probing a layer: discs of known size and contrast, put into a slice."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.data import body_mask

__all__ = ["EDGE", "Lesion", "LesionGrid", "calm_place", "lesion_signal", "nearest_place", "place_lesion"]

EDGE = 0.6
"""Standard deviation of the Gaussian that blurs a lesion's edge, mm: a body kernel's resolution."""


_SOFT = (0.0, 180.0)  # HU of soft tissue, contrast medium in organs included
_ROOM = 5.0  # mm of homogeneous tissue wanted around a lesion
_FINE = 5  # sub-pixels per pixel and direction
_LARGEST = 60.0  # mm


@dataclass(frozen=True)
class Lesion:
    """A disc with a soft edge.

    Arguments:
        size: Diameter in mm, where the edge is half as high.
        contrast: HU above (or, negative, below) the tissue.
        at: Column and row of its centre in pixels; None to have it placed.

    Raises:
        CtinvError: A size or contrast that makes no lesion.
    """

    size: float = 6.0
    contrast: float = -15.0
    at: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.size <= _LARGEST:
            raise CtinvError(
                f"a lesion of {self.size:g} mm cannot be probed; give a size up to {_LARGEST:g} mm"
            )
        if not math.isfinite(self.contrast) or self.contrast == 0:
            raise CtinvError(
                f"a lesion of {self.contrast:g} HU is none; give the HU it lies above or below its tissue"
            )

    def __str__(self) -> str:
        return f"{self.size:g} mm, {self.contrast:+g} HU"

    @classmethod
    def parse(cls, text: str) -> Lesion:
        """Read ``size=6mm,contrast=-15HU[,at=x:y]``; what is left out keeps its default.

        Raises:
            CtinvError: Something else.

        Example:
            >>> Lesion.parse("size=4mm,contrast=-20HU,at=250:300")
            Lesion(size=4.0, contrast=-20.0, at=(250, 300))
        """
        given = _fields(text, ("size", "contrast", "at"), "size=6mm,contrast=-15HU,at=x:y")
        lesion = cls(_number(given.get("size", "6"), "mm"), _number(given.get("contrast", "-15"), "hu"))
        if "at" not in given:
            return lesion
        match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", given["at"])
        if match is None:
            raise CtinvError(f"at={given['at']} is no place; give column:row in pixels, such as at=250:300")
        return replace(lesion, at=(int(match[1]), int(match[2])))


@dataclass(frozen=True)
class LesionGrid:
    """Every size with every contrast.

    Arguments:
        sizes: Diameters in mm, rising.
        contrasts: HU.

    Raises:
        CtinvError: None of either, or a size or contrast that makes no lesion.
    """

    sizes: tuple[float, ...]
    contrasts: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sizes or not self.contrasts:
            raise CtinvError("a grid needs sizes and contrasts, such as sizes=2:4:6:8,contrasts=-10:-20")
        for size in self.sizes:
            for contrast in self.contrasts:
                Lesion(size, contrast)
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        object.__setattr__(self, "contrasts", tuple(dict.fromkeys(self.contrasts)))

    @classmethod
    def parse(cls, text: str) -> LesionGrid:
        """Read ``sizes=2:4:6:8,contrasts=-10:-20:-40``.

        Raises:
            CtinvError: Something else.

        Example:
            >>> LesionGrid.parse("sizes=8:2:4mm,contrasts=-10:-20HU")
            LesionGrid(sizes=(2.0, 4.0, 8.0), contrasts=(-10.0, -20.0))
        """
        given = _fields(text, ("sizes", "contrasts"), "sizes=2:4:6:8,contrasts=-10:-20:-40")
        missing = [key for key in ("sizes", "contrasts") if key not in given]
        if missing:
            raise CtinvError(
                f"the grid {text!r} lacks {' and '.join(missing)}; give sizes=2:4:6,contrasts=-10:-20"
            )
        return cls(
            tuple(_number(part, "mm") for part in given["sizes"].split(":")),
            tuple(_number(part, "hu") for part in given["contrasts"].split(":")),
        )


def _fields(text: str, known: tuple[str, ...], form: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or key not in known or key in fields or not value:
            raise CtinvError(f"{part.strip()!r} in {text!r} is not understood; the form is {form}")
        fields[key] = value
    return fields


def _number(text: str, unit: str) -> float:
    bare = text.strip()
    if bare.lower().endswith(unit):
        bare = bare[: -len(unit)]
    try:
        value = float(bare)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CtinvError(f"{text!r} is no number of {'mm' if unit == 'mm' else 'HU'}; write it like 6 or 6.5")
    return value


def lesion_signal(
    shape: tuple[int, int], lesion: Lesion, at: tuple[int, int], spacing: tuple[float, float]
) -> Image:
    """What a lesion adds to a slice, float32 (H, W), HU.

    Arguments:
        shape: Height and width of the slice.
        lesion: Its size and contrast.
        at: Column and row of its centre.
        spacing: Row and column spacing, mm.

    Raises:
        CtinvError: The lesion is smaller than two pixels.

    Example:
        >>> disc = lesion_signal((64, 64), Lesion(20.0, 10.0), (32, 32), (1.0, 1.0))
        >>> round(float(disc.max()), 2), round(float(disc.sum() / 10), 1)
        (10.0, 313.5)
    """
    from scipy.ndimage import gaussian_filter

    if lesion.size < 2 * max(spacing):
        raise CtinvError(
            f"a lesion of {lesion.size:g} mm is smaller than two pixels of {max(spacing):.3g} mm; give at "
            f"least {math.ceil(20 * max(spacing)) / 10:g} mm"
        )
    fine = [np.float64(step) / _FINE for step in spacing]
    half = [math.ceil((lesion.size / 2 + 4 * EDGE) / step) for step in spacing]
    rows, columns = (
        (np.arange((2 * n + 1) * _FINE) - ((2 * n + 1) * _FINE - 1) / 2) * step
        for n, step in zip(half, fine, strict=True)
    )
    disc = (np.hypot(rows[:, None], columns) <= lesion.size / 2).astype(np.float64)
    soft = gaussian_filter(disc, [EDGE / step for step in fine], mode="constant")
    tall, wide = 2 * half[0] + 1, 2 * half[1] + 1
    patch = lesion.contrast * soft.reshape(tall, _FINE, wide, _FINE).mean((1, 3))
    signal = np.zeros(shape, dtype=np.float32)
    top, left = at[1] - half[0], at[0] - half[1]
    inside = (
        slice(max(0, top), max(0, min(shape[0], top + tall))),
        slice(max(0, left), max(0, min(shape[1], left + wide))),
    )
    signal[inside] = patch[
        inside[0].start - top : inside[0].stop - top, inside[1].start - left : inside[1].stop - left
    ]
    return signal


def place_lesion(
    x: Image,
    lesion: Lesion,
    spacing: tuple[float, float],
    body: Callable[[Image], npt.NDArray[np.bool_]] = body_mask,
) -> tuple[int, int]:
    """Column and row of a lesion's centre: where it asks to be, else in homogeneous soft tissue.

    Arguments:
        x: The slice (H, W), HU.
        lesion: The lesion; in a grid, the largest.
        spacing: Row and column spacing, mm.
        body: Finds the body.

    Raises:
        ImageError: Outside the slice or the body, or no homogeneous soft tissue of that size.
    """
    if lesion.at is None:
        return calm_place(x, lesion.size, spacing)
    column, row = lesion.at
    if row >= x.shape[0] or column >= x.shape[1]:
        raise ImageError(
            f"at={column}:{row} lies outside the slice of {x.shape[1]} x {x.shape[0]} pixels "
            "(columns x rows); name a pixel inside"
        )
    if not body(x)[row, column]:
        raise ImageError(
            f"at={column}:{row} lies outside the body ({x[row, column]:.0f} HU); name a pixel in tissue, or "
            "leave at= out"
        )
    return column, row


def nearest_place(
    x: Image, size: float, spacing: tuple[float, float], margin: int = 0
) -> tuple[tuple[int, int], float, str | None]:
    """Where a lesion fits or, failing that, where the nearest lesion does that the slice can serve.

    First less homogeneous tissue is asked for around the lesion, then a smaller lesion.

    Arguments:
        x: The slice (H, W), HU.
        size: Diameter of the lesion, mm.
        spacing: Row and column spacing, mm.
        margin: Pixels of the slice, of any tissue, that must lie on every side of the place.

    Returns:
        Column and row; the diameter that fits there, mm; what to tell the user where that is not what
        was asked for.

    Raises:
        ImageError: No soft tissue even for a lesion of two pixels.
    """
    least = 2 * max(spacing)
    smaller = np.arange(math.ceil(size * 2) / 2 - 0.5, least, -0.5)
    for fitting in (size, *(float(s) for s in smaller if least <= s < size)):
        for room in (_ROOM, _ROOM / 2, 0.0):
            try:
                at = calm_place(x, fitting, spacing, room, margin)
            except ImageError:
                continue
            if (fitting, room) == (size, _ROOM):
                return at, size, None
            return (
                at,
                fitting,
                (
                    f"the slice has no homogeneous soft tissue for a lesion of {size:g} mm with {_ROOM:g} mm "
                    f"around it; one of {fitting:g} mm with {room:g} mm around it is probed, "
                    f"at column {at[0]}, row {at[1]}"
                ),
            )
    return calm_place(x, size, spacing, margin=margin), size, None


def calm_place(
    x: Image, size: float, spacing: tuple[float, float], room: float = _ROOM, margin: int = 0
) -> tuple[int, int]:
    """Column and row of the most homogeneous soft tissue that a lesion fits into.

    Homogeneous is where the smoothed slice varies least within the lesion and some mm around it. The
    slice alone decides, so that the same slice always gives the same place.

    Arguments:
        x: The slice (H, W), HU.
        size: Diameter of the lesion, mm.
        spacing: Row and column spacing, mm.
        room: Homogeneous tissue around the lesion, mm.
        margin: Pixels of the slice, of any tissue, that must lie on every side of the place.

    Raises:
        ImageError: No soft tissue of that size with that margin.
    """
    from scipy.ndimage import gaussian_filter, uniform_filter

    reach = [max(1, round((size / 2 + room) / step)) for step in spacing]
    smooth = gaussian_filter(x, [2.0 / step for step in spacing]).astype(np.float64)
    window = [2 * n + 1 for n in reach]
    soft = ((smooth > _SOFT[0]) & (smooth < _SOFT[1])).astype(np.float64)
    fits = uniform_filter(soft, window, mode="constant") > 1 - 1e-9
    tall, wide = (max(margin, n) for n in reach)
    fits[:tall] = fits[-tall:] = False
    fits[:, :wide] = fits[:, -wide:] = False
    if not fits.any():
        around, mend = "", "name a place with at=column:row, or give a smaller lesion"
        if margin:
            around, mend = f" with {margin} pixels of slice around it", "give a larger slice"
        raise ImageError(
            f"the slice has no homogeneous soft tissue ({_SOFT[0]:g} to {_SOFT[1]:g} HU) for a lesion of "
            f"{size:g} mm{around}; {mend}"
        )
    centred = smooth - float(smooth[fits].mean())  # keeps the difference of squares exact enough
    mean = uniform_filter(centred, window)
    spread = uniform_filter(np.square(centred), window) - np.square(mean)
    row, column = np.unravel_index(int(np.argmin(np.where(fits, spread, np.inf))), x.shape)
    return int(column), int(row)
