"""The task transfer function: how a denoiser passes the edge of a rod of some contrast at some dose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

__all__ = ["Transfer", "task_transfer"]

_BIN = 0.2  # pixels, width of the rings that the edge is read in
_OUTSIDE = 1.8  # how far from the middle the edge is read, in radii
_TAPER = 0.3  # share of the line-spread function that is faded out at each end


@dataclass(frozen=True, eq=False)
class Transfer:
    """A task transfer function.

    Arguments:
        frequency: Cycles per mm, rising from 0.
        value: 1 at frequency 0.
        contrast: What the rod has in the middle, HU.
    """

    frequency: NDArray[np.float64]
    value: NDArray[np.float64]
    contrast: float

    def falls_to(self, level: float) -> float:
        """The first frequency at which it is below a level, cycles per mm; the last one where it never is."""
        below = np.flatnonzero(self.value < level)
        if not len(below) or below[0] == 0:
            return float(self.frequency[-1 if not len(below) else 0])
        i = int(below[0])
        high, low = self.value[i - 1], self.value[i]
        share = (high - level) / (high - low)
        return float(self.frequency[i - 1] + share * (self.frequency[i] - self.frequency[i - 1]))


def task_transfer(
    image: NDArray[Any], at: tuple[float, float], radius: float, spacing: tuple[float, float]
) -> Transfer:
    """Measure the transfer on the circular edge of a rod, in an image that is a mean over many realisations.

    The edge-spread function is read over the distance from the middle, its derivative is the line-spread
    function, and the modulus of that function's Fourier transform, 1 at frequency 0, the transfer.

    Source: E. Samei et al., "Performance evaluation of computed tomography systems: summary of AAPM Task
    Group 233", Medical Physics 46, 2019, https://doi.org/10.1002/mp.13763

    Arguments:
        image: Mean of images with the rod, less that of images without it where there are such, (H, W), HU.
        at: Column and row of the rod's middle, which may lie between pixels.
        radius: Of the rod, mm.
        spacing: Row and column spacing, mm.

    Raises:
        ImageError: The rod and its surroundings do not fit into the image, or the rod has no contrast.
    """
    values = np.asarray(image, dtype=np.float64)
    step = _BIN * min(spacing)
    reach = _OUTSIDE * radius
    rows, columns = (np.arange(n, dtype=np.float64) for n in values.shape)
    distance = np.hypot((rows[:, None] - at[1]) * spacing[0], (columns - at[0]) * spacing[1])
    room = min(at[1] * spacing[0], at[0] * spacing[1])
    room = min(room, (len(rows) - 1 - at[1]) * spacing[0], (len(columns) - 1 - at[0]) * spacing[1])
    if room < reach:
        raise ImageError(
            f"a rod of {radius:g} mm at column {at[0]:g}, row {at[1]:g} has less than {reach:.3g} mm of "
            "image around it; give a larger image"
        )
    edge = _edge(values, distance, radius, reach, step)
    inner, outer = edge[: max(3, len(edge) // 5)].mean(), edge[-max(3, len(edge) // 5) :].mean()
    if not abs(inner - outer) > 1e-9:
        raise ImageError("the rod has no contrast in this image; there is no edge to measure")
    line = -np.diff(edge) / (inner - outer)
    count = len(line)
    fade = np.ones(count)
    taper = max(1, round(_TAPER * count))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(taper) + 0.5) / taper)
    fade[:taper], fade[-taper:] = ramp, ramp[::-1]
    spectrum = np.abs(np.fft.rfft(line * fade, 8 * count))
    frequency = np.asarray(np.fft.rfftfreq(8 * count, step), dtype=np.float64)
    kept = frequency <= 0.5 / max(spacing)
    # The difference of neighbouring rings and the rings' width are averages themselves, taken back here.
    taken = np.sinc(frequency[kept] * step) ** 2
    value = np.asarray(spectrum[kept] / spectrum[0] / taken, dtype=np.float64)
    return Transfer(frequency[kept], value, float(inner - outer))


def _edge(
    values: NDArray[np.float64], distance: NDArray[np.float64], radius: float, reach: float, step: float
) -> NDArray[np.float64]:
    """Mean over narrow rings around the edge; rings without a pixel are filled in from their neighbours."""
    first = max(0.0, radius - (reach - radius))
    ring = np.floor((distance - first) / step).astype(int)
    count = int((reach - first) / step)
    inside = (ring >= 0) & (ring < count)
    members = np.bincount(ring[inside], minlength=count)
    sums = np.bincount(ring[inside], values[inside], minlength=count)
    places = np.bincount(ring[inside], distance[inside], minlength=count)
    filled = members > 0
    middles = first + (np.arange(count) + 0.5) * step
    return np.interp(middles, places[filled] / members[filled], sums[filled] / members[filled])
