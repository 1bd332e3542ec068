"""HU bias of a denoised image, tissue by tissue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

__all__ = ["TISSUE_RANGES", "Bias", "hu_bias"]

TISSUE_RANGES: dict[str, tuple[float, float]] = {
    "lung": (-950.0, -500.0),
    "fat": (-140.0, -40.0),
    "soft tissue": (0.0, 130.0),
    "contrast medium": (130.0, 300.0),
    "bone": (300.0, 3000.0),
}
"""Tissue to its HU in the truth."""

_FEWEST = 50  # pixels


@dataclass(frozen=True)
class Bias:
    """Of one tissue.

    Arguments:
        tissue: Its name.
        value: Mean of image less truth, HU.
        error: Standard error over the images, HU; not a number for one.
        pixels: Of the tissue, borders left out.
    """

    tissue: str
    value: float
    error: float
    pixels: int


def hu_bias(images: NDArray[Any], truth: NDArray[Any]) -> tuple[Bias, ...]:
    """By how much images are too bright, in the inside of every tissue that the truth shows.

    Arguments:
        images: (N, H, W), HU.
        truth: (H, W), HU, without noise.
    """
    stack, known = np.asarray(images, np.float64), np.asarray(truth, np.float64)
    biases = []
    for tissue, (low, high) in TISSUE_RANGES.items():
        inside = binary_erosion((known >= low) & (known < high), iterations=2)
        if inside.sum() < _FEWEST:
            continue
        values = (stack[:, inside] - known[inside]).mean(1)
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        biases.append(Bias(tissue, float(values.mean()), error, int(inside.sum())))
    return tuple(biases)
