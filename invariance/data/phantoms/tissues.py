"""Tissues of the phantoms, and how a shape is filled with one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Region

__all__ = ["LABELS", "TISSUES", "Lesion", "Tissue", "bone", "fill", "insert", "tone"]


@dataclass(frozen=True)
class Tissue:
    """HU range of a tissue and the HU of its fine, broad and strand-like texture."""

    hu: tuple[float, float]
    grain: tuple[float, float, float] = (0.0, 0.0, 0.0)


TISSUES: dict[str, Tissue] = {
    "air": Tissue((-1000, -1000), (0, 0, 0)),
    "table": Tissue((-250, 50)),
    "skin": Tissue((-20, 30), (4, 3, 0)),
    "fat": Tissue((-112, -92), (6, 10, 62)),
    "muscle": Tissue((36, 62), (8, 11, -52)),
    "bone": Tissue((350, 800), (40, 40, 0)),
    "marrow": Tissue((110, 230), (38, 22, 0)),
    "lung": Tissue((-935, -820), (24, 18, 40)),
    "airway": Tissue((-995, -960), (3, 0, 0)),
    "vessel": Tissue((40, 55), (3, 2, 0)),
    "heart": Tissue((30, 55), (5, 8, 0)),
    "liver": Tissue((50, 110), (5, 5, 0)),
    "spleen": Tissue((50, 120), (4, 4, 0)),
    "kidney": Tissue((60, 190), (5, 8, 0)),
    "bowel": Tissue((0, 60), (10, 14, 0)),
    "gas": Tissue((-990, -900), (5, 0, 0)),
    "cord": Tissue((15, 40), (4, 4, 0)),
    "lesion": Tissue((0, 0), (3, 3, 0)),
}
"""Tissues in the order of their labels; contrast media raise vessels and organs above these HU."""

LABELS = {name: index for index, name in enumerate(TISSUES)}
"""Tissue to label."""


@dataclass(frozen=True)
class Lesion:
    """An inserted lesion.

    Arguments:
        kind: ``nodule``, ``ground glass`` or ``focal``.
        centre: Row and column.
        radius: Mean radius in mm.
        contrast: HU above (or below) the tissue it lies in.
    """

    kind: str
    centre: tuple[int, int]
    radius: float
    contrast: float


def tone(canvas: Canvas, name: str) -> float:
    """A value from the tissue's HU range."""
    low, high = TISSUES[name].hu
    return float(canvas.rng.uniform(low, high))


def fill(canvas: Canvas, region: Region, name: str, hu: float | None = None, width: float = 0.0) -> float:
    """Fill a shape with a tissue, ``hu`` or a value of its range; returns the value."""
    value = tone(canvas, name) if hu is None else hu
    canvas.paint(region, value, LABELS[name], width=width)
    return value


def bone(canvas: Canvas, region: Region, shell: float, cortex: float | None = None) -> None:
    """Spongy bone in a shell of ``shell`` mm."""
    fill(canvas, region, "bone", cortex)
    fill(canvas, region.inset(shell), "marrow", width=1.5)


def insert(
    canvas: Canvas, where: NDArray[np.bool_], kind: str, radius: float, contrast: float, rim: float
) -> Lesion | None:
    """A lesion wholly inside the pixels ``where``; None when there is no room."""
    from scipy.ndimage import distance_transform_edt

    coarse = where[::2, ::2]
    room = np.argwhere(distance_transform_edt(coarse) * 2.0 * canvas.spacing > radius * 1.2 + canvas.spacing)
    if len(room) == 0:
        return None
    row, column = (int(v) * 2 for v in room[canvas.rng.integers(len(room))])
    half = canvas.size // 2
    x, y = (column - half) * canvas.spacing, (row - half) * canvas.spacing
    shape = canvas.blob(x, y, radius, radius, wobble=0.06)
    canvas.paint(shape, canvas.hu + np.float32(contrast), LABELS["lesion"], width=rim)
    return Lesion(kind, (row, column), radius, contrast)
