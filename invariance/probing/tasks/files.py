"""Lesions from files: a patch in HU, or a mask that is given a contrast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.read import read
from numpy.typing import NDArray

__all__ = ["LesionFile", "read_lesion"]

_LARGEST = 256


@dataclass(frozen=True, eq=False)
class LesionFile:
    """A lesion as a file holds it.

    Arguments:
        values: (h, w): HU above the tissue, or, of a mask, 1 within and 0 outside.
        spacing: Row and column spacing, mm; None for that of the slice.
        mask: Whether the values are a mask.
        name: What to call it.
    """

    values: Image
    spacing: tuple[float, float] | None
    mask: bool
    name: str

    def placed(
        self, shape: tuple[int, int], at: tuple[float, float], spacing: tuple[float, float], contrast: float
    ) -> Image:
        """What the lesion adds to a slice, float32 (H, W), HU.

        Arguments:
            shape: Height and width of the slice.
            at: Column and row of its middle.
            spacing: Row and column spacing of the slice, mm.
            contrast: HU within a mask; a patch is scaled to have it as its strongest value.
        """
        from scipy.ndimage import map_coordinates

        own = self.spacing or spacing
        rows, columns = np.indices(shape, dtype=np.float64)
        places = [
            (index - middle) * step / fine + (length - 1) / 2
            for index, middle, step, fine, length in zip(
                (rows, columns), (at[1], at[0]), spacing, own, self.values.shape, strict=True
            )
        ]
        drawn = map_coordinates(self.values.astype(np.float64), places, order=1, mode="constant")
        return np.asarray(drawn * (contrast / self.strongest), dtype=np.float32)

    @property
    def size(self) -> float:
        """Its longer side where it has values, mm; of a pixel of 0.8 mm where the file states none."""
        held = np.abs(self.values) > 0.1 * np.abs(self.values).max()
        spans = [np.ptp(np.nonzero(held)[axis]) + 1 for axis in (0, 1)]
        return float(max(span * step for span, step in zip(spans, self.spacing or (0.8, 0.8), strict=True)))

    @property
    def strongest(self) -> float:
        """The value farthest from 0, HU; 1 for a mask."""
        flat = self.values.ravel()
        return float(flat[np.abs(flat).argmax()])


def read_lesion(path: str | Path) -> LesionFile:
    """Read a lesion from any file that a slice can be read from.

    A file with values of 0 and 1 only is a mask; anything else is HU above the tissue.

    Raises:
        ImageError: Not readable, empty, larger than 256 pixels, or more than one slice.
    """
    path = Path(path)
    slices = read(path, offset=0, scale=1)
    if len(slices) != 1:
        raise ImageError(f"{path} holds {len(slices)} slices; a lesion's file must hold one")
    values: NDArray[Any] = np.asarray(slices[0].hu, dtype=np.float32)
    if max(values.shape) > _LARGEST:
        raise ImageError(
            f"{path} has {values.shape[0]} x {values.shape[1]} pixels; cut a lesion of at most {_LARGEST} out"
        )
    if not np.isfinite(values).all() or not values.any():
        raise ImageError(f"{path} holds no lesion: all values are 0, or some are not finite")
    mask = bool(np.isin(values, (0.0, 1.0)).all())
    return LesionFile(values, slices[0].spacing, mask, path.name)
