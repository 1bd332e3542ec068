"""One CT slice in Hounsfield units, with what is known about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["OUTSIDE_HU", "CTSlice"]

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

    @property
    def name(self) -> str:
        """What the slice is called in everything that is written.

        The file's own name only where its tags say that identity was removed, or the user wants it
        (``meta["keep_name"]``); else eight digits of the pixels' hash, which tell nothing of the
        patient, and the slice's number.
        """
        return self.called(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.hu).tobytes()).hexdigest()

    def called(self, digest: str) -> str:
        """The name of a slice like this one with such pixels."""
        if "simulated_name" in self.meta:  # a slice at a lower dose is called after the one it was made of
            return str(self.meta["simulated_name"])
        keep = self.meta.get("keep_name", self.meta.get("deidentified", False))
        number = self.meta.get("frame", self.meta.get("instance"))
        if keep and self.source is not None:
            return self.source.name
        return f"slice-{digest[:8]}" if number is None else f"slice-{digest[:8]}-{number}"

    def __repr__(self) -> str:
        name = self.source.name if self.source else "in memory"
        low, high = float(self.hu.min()), float(self.hu.max())
        return f"CTSlice({name}, {self.shape[0]}x{self.shape[1]}, {low:g}..{high:g} HU)"
