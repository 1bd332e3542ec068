"""Grey windows: which HU are told apart where an image is shown or measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["BONE", "BRAIN", "LUNG", "PRESETS", "SOFT_TISSUE", "WINDOWS", "Window", "choose_window"]


@dataclass(frozen=True)
class Window:
    """A grey window in HU.

    Arguments:
        name: For example ``lung``.
        centre: Level in HU.
        width: Width in HU.
    """

    name: str
    centre: float
    width: float

    @property
    def limits(self) -> tuple[float, float]:
        """The HU values shown black and white."""
        return self.centre - self.width / 2, self.centre + self.width / 2

    def __str__(self) -> str:
        centre = f"{self.centre:g}".replace("-", "−")
        return f"{self.name} window, centre {centre} HU, width {self.width:g} HU"


SOFT_TISSUE = Window("soft-tissue", 50.0, 400.0)
LUNG = Window("lung", -600.0, 1500.0)
BONE = Window("bone", 400.0, 1800.0)
BRAIN = Window("brain", 40.0, 80.0)

PRESETS = {"Soft tissue": SOFT_TISSUE, "Lung": LUNG, "Bone": BONE, "Head": BRAIN}
"""Windows that a reader may choose from, by what is said on the button."""

WINDOWS = {"chest": LUNG, "abdomen": SOFT_TISSUE, "head": BRAIN}
"""Windows by body part: E. Eulig, B. Ommer, M. Kachelrieß, "Benchmarking deep learning-based low-dose CT
image denoising algorithms", Medical Physics 51, 2024, https://doi.org/10.1002/mp.17379."""


def choose_window(x: npt.NDArray[np.float32]) -> Window:
    """The window to show an image in: lung where there is half as much lung as soft tissue, or more.

    Lung is what lies between -950 and -600 HU, soft tissue what lies between -150 and 250 HU.

    Arguments:
        x: Image in HU, any shape.

    Example:
        >>> choose_window(np.full((8, 8), -800.0, dtype=np.float32)).name
        'lung'
        >>> choose_window(np.zeros((8, 8), dtype=np.float32)).name
        'soft-tissue'
    """
    lung, soft = (np.count_nonzero((x > low) & (x < high)) for low, high in ((-950, -600), (-150, 250)))
    return LUNG if lung and 2 * lung >= soft else SOFT_TISSUE
