"""Intensity conventions: the affine map between Hounsfield units and a model's own units."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .errors import IntensityError

__all__ = ["CANDIDATES", "Intensity", "parse_intensity"]

_FORMS = "hu, unit:LO:HI, standard:MEAN:STD, offset:K or offset:K:<one of the others>"


@dataclass(frozen=True)
class Intensity:
    """An invertible map from HU to a model's units, ``u = (hu - shift) / scale``.

    Arguments:
        spec: The convention as text; :func:`parse_intensity` reads it back.
        shift: The HU value that the model sees as 0.
        scale: HU per model unit.
    """

    spec: str
    shift: float
    scale: float

    def to_model(self, hu: Any) -> Any:
        """HU, any shape, torch or numpy, to the model's units."""
        return (hu - self.shift) / self.scale

    def to_hu(self, u: Any) -> Any:
        """The model's units, any shape, torch or numpy, to HU."""
        return u * self.scale + self.shift

    def __str__(self) -> str:
        return self.spec


def _numbers(spec: str, parts: list[str], count: int) -> list[float]:
    try:
        values = [float(p) for p in parts]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(v) for v in values):
        raise IntensityError(f"intensity {spec!r} is not understood; it is one of: {_FORMS}")
    return values


def parse_intensity(spec: str) -> Intensity:
    """Read an intensity convention.

    Arguments:
        spec: ``hu`` (the model takes HU); ``unit:LO:HI`` (the HU range LO..HI is mapped to 0..1);
            ``standard:MEAN:STD`` (HU mean and standard deviation are taken out); ``offset:K``
            (stored values, HU + K), which may be followed by ``:unit:LO:HI`` or
            ``:standard:MEAN:STD`` in stored values.

    Raises:
        IntensityError: The text is none of these forms, or its scale is zero or negative.

    Example:
        >>> parse_intensity("unit:-1000:1000").to_model(0.0)
        0.5
        >>> parse_intensity("offset:1024:standard:481.5:502.2").shift
        -542.5
    """
    kind, *rest = spec.strip().lower().split(":")
    if kind == "hu" and not rest:
        return Intensity(spec, 0.0, 1.0)
    if kind == "unit":
        low, high = _numbers(spec, rest, 2)
        shift, scale = low, high - low
    elif kind == "standard":
        shift, scale = _numbers(spec, rest, 2)
    elif kind == "offset" and rest:
        (offset,) = _numbers(spec, rest[:1], 1)
        inner = parse_intensity(":".join(rest[1:]) or "hu")
        shift, scale = inner.shift - offset, inner.scale
    else:
        raise IntensityError(f"intensity {spec!r} is not understood; it is one of: {_FORMS}")
    if scale <= 0:
        raise IntensityError(f"intensity {spec!r} has no positive scale ({scale:g} HU per unit)")
    return Intensity(spec, shift, scale)


CANDIDATES: tuple[str, ...] = (
    "hu",
    "offset:1024",
    "unit:-1024:3072",
    "unit:-1000:1000",
    "unit:-160:240",
    "unit:-300:300",
    "offset:1024:standard:481.454:502.185",
    "standard:-500:500",
)
"""Conventions that ``auto`` tries, the most common first."""
