"""One CT slice in Hounsfield units, with what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

__all__ = ["OUTSIDE_HU", "CTSlice", "mark_outside"]

OUTSIDE_HU = -1024.0
"""HU given to pixels that hold no measurement: padding and everything outside the field of view."""


@dataclass(frozen=True, eq=False)
class CTSlice:
    """One slice of a CT scan.

    Arguments:
        hu: Float32 (H, W), HU; pixels that are not valid hold :data:`OUTSIDE_HU`.
        valid: Bool (H, W): the pixel was measured; false for padding and outside the field of view.
        spacing: Distance between rows and between columns in mm; None where the file does not say.
        position: Patient coordinates of the first pixel's centre in mm, or None.
        orientation: Direction of the rows and of the columns, six numbers, or None.
        source: The file it came from.
        meta: Patient, series, kernel and so on: text and numbers only, absent where unknown.
    """

    hu: NDArray[np.float32]
    valid: NDArray[np.bool_]
    spacing: tuple[float, float] | None = None
    position: tuple[float, float, float] | None = None
    orientation: tuple[float, ...] | None = None
    source: Path | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.hu.shape[0]), int(self.hu.shape[1]))

    @property
    def height(self) -> float | None:
        """Place along the slice normal in mm; None where position or orientation is unknown."""
        if self.position is None or self.orientation is None:
            return None
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return float(np.dot(normal, self.position))

    def __repr__(self) -> str:
        name = self.source.name if self.source else "in memory"
        low, high = float(self.hu.min()), float(self.hu.max())
        return f"CTSlice({name}, {self.shape[0]}x{self.shape[1]}, {low:g}..{high:g} HU)"


def mark_outside(
    hu: NDArray[Any], padding: NDArray[np.bool_] | None = None, source: str = "the image"
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Find the pixels that hold no measurement and give them :data:`OUTSIDE_HU`.

    These are the pixels the file declares as padding, and those at the smallest value of the image
    if at least two corners hold that value too and it is below -1024 HU. At exactly -1024 HU, which
    clipped air has as well, only those outside the circle that the image contains, and only where
    nearly all of that outside has this value.

    Arguments:
        hu: (H, W), HU.
        padding: Bool (H, W), what the file declares as padding.
        source: The name used in the error.

    Returns:
        Float32 HU (H, W) and the bool mask of valid pixels.

    Raises:
        ImageError: No pixel is valid.
    """
    out = np.array(hu, dtype=np.float32)
    outside = np.zeros(out.shape, dtype=bool) if padding is None else np.array(padding, dtype=bool)
    fill = float(out[~outside].min()) if not outside.all() else 0.0
    corners = out[[0, 0, -1, -1], [0, -1, 0, -1]]
    if fill <= OUTSIDE_HU and int((corners == fill).sum()) >= 2:
        filled = out == fill
        if fill == OUTSIDE_HU:
            rows, columns = (np.arange(n) - (n - 1) / 2 for n in out.shape)
            beyond = np.hypot(rows[:, None], columns) > min(out.shape) / 2
            filled &= beyond & bool(filled[beyond].mean() > 0.95)
        outside |= filled
    if outside.all():
        raise ImageError(f"{source} holds no measured pixel: all is padding; give a slice with content")
    out[outside] = OUTSIDE_HU
    return out, ~outside
