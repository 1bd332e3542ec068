"""A task: two alternatives of which an observer must tell which one he sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.simulation.insertion import reconstructed

from .files import LesionFile
from .shapes import SHAPES, draw

__all__ = ["TASKS", "Alternative", "Task", "low_contrast"]

Alternative = str
"""Key of a shape, ``nothing``, or ``file``."""

TASKS: dict[str, tuple[Alternative, Alternative]] = {
    "detect": ("nothing", "disc"),
    "detect-sphere": ("nothing", "sphere"),
    "detect-gaussian": ("nothing", "gaussian"),
    "detect-rod": ("nothing", "rod"),
    "spiculated": ("disc", "spiculated"),
    "two": ("disc", "two"),
    "edge": ("disc", "soft"),
    "gap": ("disc", "gap"),
    "texture": ("disc", "texture"),
    "contrast": ("disc", "stronger"),
    "detect-file": ("nothing", "file"),
}
"""Task to its two alternatives. ``contrast`` asks whether a disc has half as much contrast again."""

_STRONGER = 1.5


@dataclass(frozen=True)
class Task:
    """One question with its size and contrast.

    Arguments:
        kind: A key of :data:`TASKS`.
        size: Of the lesion, mm.
        contrast: HU.
        file: The lesion of ``detect-file``.

    Raises:
        CtinvError: An unknown kind, or a size or contrast that makes no lesion.
    """

    kind: str = "detect"
    size: float = 6.0
    contrast: float = -15.0
    file: LesionFile | None = None

    def __post_init__(self) -> None:
        if self.kind not in TASKS:
            raise CtinvError(f"{self.kind!r} is no task; choose one of: {', '.join(TASKS)}")
        if (self.file is None) == (self.kind == "detect-file"):
            raise CtinvError("the task detect-file needs a lesion's file, and it alone takes one")
        if not (0 < self.size <= 60) or not math.isfinite(self.contrast) or self.contrast == 0:
            raise CtinvError(
                f"a lesion of {self.size:g} mm and {self.contrast:g} HU is none; give a size up to 60 mm "
                "and a contrast other than 0"
            )

    @property
    def name(self) -> str:
        """For tables and file names.

        Example:
            >>> Task("gap", 8, 30).name
            'gap 8 mm +30 HU'
        """
        named = f" {self.file.name}" if self.file else ""
        return f"{self.kind}{named} {self.size:g} mm {self.contrast:+g} HU"

    @property
    def detects(self) -> bool:
        """Whether one alternative is nothing."""
        return TASKS[self.kind][0] == "nothing"

    def signals(
        self,
        shape: tuple[int, int],
        at: tuple[float, float],
        spacing: tuple[float, float],
        *,
        projected: bool = False,
    ) -> tuple[Image, Image]:
        """What each alternative adds to a slice, float32 (H, W) each, HU.

        Arguments:
            shape: Height and width of the slice.
            at: Column and row of the middle.
            spacing: Row and column spacing, mm.
            projected: Whether the lesion goes into the projections, so that the kernel blurs it, instead of
                being drawn with a soft edge.
        """
        drawn = []
        for alternative in TASKS[self.kind]:
            signal = self._draw(alternative, shape, at, spacing, projected)
            drawn.append(reconstructed(signal, spacing) if projected and signal.any() else signal)
        return drawn[0], drawn[1]

    def _draw(
        self,
        alternative: Alternative,
        shape: tuple[int, int],
        at: tuple[float, float],
        spacing: tuple[float, float],
        sharp: bool,
    ) -> Image:
        if alternative == "nothing":
            return np.zeros(shape, dtype=np.float32)
        if self.file is not None:
            return self.file.placed(shape, at, spacing, self.contrast)
        factor = _STRONGER if alternative == "stronger" else 1.0
        name = alternative if alternative in SHAPES else "disc"
        return draw(name, self.size, factor * self.contrast, shape, at, spacing, sharp=sharp)


def low_contrast() -> tuple[Task, ...]:
    """The questions of the protocol ``low-contrast``.

    Discs as in the low-contrast phantoms used for testing reconstruction software (3 mm and 14 HU, 5 and 7,
    7 and 5, 10 and 3); one size at several contrasts and one contrast at several sizes; and four questions
    on what kind of lesion it is.
    """
    discs = [
        (3.0, 14.0),
        (5.0, 7.0),
        (7.0, 5.0),
        (10.0, 3.0),
        (5.0, 3.5),
        (5.0, 14.0),
        (3.0, 7.0),
        (10.0, 7.0),
    ]
    kinds = [("spiculated", 8.0, 25.0), ("two", 8.0, 25.0), ("edge", 8.0, 40.0), ("gap", 6.0, 25.0)]
    return (
        *(Task("detect", size, contrast) for size, contrast in discs),
        *(Task(kind, size, contrast) for kind, size, contrast in kinds),
    )
