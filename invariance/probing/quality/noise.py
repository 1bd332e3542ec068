"""Noise of a denoised image: its spectrum, its mean frequency, its direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.invariance.data.metrics import NoisePower, noise_power
from numpy.typing import NDArray

__all__ = ["NoiseFigures", "noise_figures", "streak_index"]

_SECTORS = 12  # of half a turn
_LOWEST = 2  # rings of the spectrum that trends of the image may fill


@dataclass(frozen=True, eq=False)
class NoiseFigures:
    """What a noise power spectrum comes to.

    Arguments:
        power: The two-dimensional spectrum.
        frequency: Of the radial spectrum, cycles per mm.
        radial: Radial spectrum, HU^2 mm^2.
        peak: Frequency of its largest value, cycles per mm.
        mean: Its mean frequency, cycles per mm.
        magnitude: Standard deviation of the noise, HU.
        streaks: See :func:`streak_index`.
    """

    power: NoisePower
    frequency: NDArray[np.float64]
    radial: NDArray[np.float64]
    peak: float
    mean: float
    magnitude: float
    streaks: float


def noise_figures(images: NDArray[Any], spacing: tuple[float, float]) -> NoiseFigures:
    """Measure the noise of realisations of one object: what they do not share.

    On a uniform background and on a patient's alike: the mean over the realisations, with all structure,
    is taken off.

    Source: E. Samei et al., "Performance evaluation of computed tomography systems: summary of AAPM Task
    Group 233", Medical Physics 46, 2019, https://doi.org/10.1002/mp.13763

    Arguments:
        images: (N, H, W), HU.
        spacing: Row and column spacing, mm.

    Raises:
        ImageError: Fewer than two images.
    """
    power = noise_power(images, spacing)
    frequency, radial = power.radial()
    weight = radial * frequency  # a ring at f has that many more samples
    mean = float((weight * frequency).sum() / weight.sum()) if weight.sum() > 0 else 0.0
    return NoiseFigures(
        power,
        frequency,
        radial,
        float(frequency[radial.argmax()]),
        mean,
        float(np.sqrt(power.variance)),
        streak_index(power),
    )


def streak_index(power: NoisePower) -> float:
    """Share of the noise power that its strongest direction holds beyond an equal share.

    Streaks along one direction put their power into the sector of frequencies across it. 0 where all
    directions hold the same, close to 1 where one sector of 15 degrees holds everything.

    Arguments:
        power: The spectrum.
    """
    rows, columns = power.rows[:, None], power.columns[None, :]
    frequency = np.hypot(rows, columns)
    limit = min(float(np.abs(power.rows).max()), float(np.abs(power.columns).max()))
    lowest = _LOWEST * max(float(power.rows[1]), float(power.columns[1]))
    used = (frequency <= limit) & (frequency > lowest)
    angle = np.mod(np.arctan2(rows, columns + 0 * rows), np.pi)
    sector = np.mod(np.round(angle / np.pi * _SECTORS).astype(int), _SECTORS)
    members = np.bincount(sector[used], minlength=_SECTORS)
    held = np.bincount(sector[used], power.nps[used], minlength=_SECTORS) / np.maximum(members, 1)
    total = float(held.sum())
    if total <= 0:
        return 0.0
    return float((held.max() / total - 1 / _SECTORS) / (1 - 1 / _SECTORS))
