"""Low-dose CT from a routine slice: quantum and electronic noise, added in projection space."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .projection import ParallelBeam, parallel_beam

__all__ = [
    "ELECTRONIC_NOISE",
    "KERNELS",
    "MU_WATER",
    "REFERENCE_FLUENCE",
    "Kernel",
    "bowtie",
    "dose_pair",
    "kernel_window",
    "noise_realisations",
    "simulate_low_dose",
]

Kernel = Literal["smooth", "medium", "sharp"]

MU_WATER = 0.0193
"""Linear attenuation of water at 70 keV, the mean energy of a 120 kV beam behind a body, 1/mm (NIST)."""

REFERENCE_FLUENCE = 1.2e6
"""Photons behind the bowtie's middle for one view and 1 mm of detector at the isocentre, 1000 views
over half a turn: a routine-dose scan with 3 to 5 mm slices."""

ELECTRONIC_NOISE = 10.0
"""Standard deviation of the read-out, in photons, for the same detector cell."""

KERNELS: dict[str, tuple[float, float]] = {
    "smooth": (0.70, 0.0),
    "medium": (0.90, 0.15),
    "sharp": (1.15, 0.5),
}
"""Kernel name to (cut-off in cycles/mm, edge boost). The window over the ramp is
``hann(f / cut-off) (1 + boost (2 f / cut-off)^2)``; it falls to one half at 0.35, 0.50 and 0.75 cycles/mm,
about where body, medium and lung kernels of clinical scanners do."""

_VIEWS = 1000.0
_BOWTIE_RADIUS = 160.0  # mm of water that the bowtie is shaped for
_BOWTIE_STRENGTH = 0.5  # 1 would make a centred water cylinder's shadow flat
_MANY_PHOTONS = 500.0  # from here on a Poisson count is normal to the eye: its skewness is below 0.05
_FEWEST_PHOTONS = 1.0  # no ray starves below this; real systems filter such rays


def bowtie(offset_mm: NDArray[Any]) -> NDArray[np.float64]:
    """Relative fluence behind the bowtie filter at distances from the isocentre in mm; 1 in the middle."""
    chord = 2.0 * np.sqrt(np.clip(_BOWTIE_RADIUS**2 - np.square(offset_mm), 0.0, None))
    return np.asarray(np.exp(-_BOWTIE_STRENGTH * MU_WATER * (2.0 * _BOWTIE_RADIUS - chord)), dtype=np.float64)


def kernel_window(kernel: str, frequency: NDArray[Any]) -> NDArray[np.float64]:
    """The reconstruction kernel over the ramp.

    Arguments:
        kernel: One of :data:`KERNELS`.
        frequency: Cycles per mm, any shape.

    Raises:
        ImageError: No such kernel.
    """
    if kernel not in KERNELS:
        raise ImageError(f"kernel {kernel!r} is not known; choose one of: {', '.join(KERNELS)}")
    cut, boost = KERNELS[kernel]
    ratio = np.abs(frequency) / cut
    hann = np.where(ratio < 1.0, 0.5 * (1.0 + np.cos(np.pi * np.minimum(ratio, 1.0))), 0.0)
    return np.asarray(hann * (1.0 + boost * np.square(2.0 * ratio)), dtype=np.float64)


def _check(hu: NDArray[np.float32], spacing: tuple[float, float], dose: float, input_dose: float) -> None:
    if hu.ndim != 2 or min(hu.shape) < 8:
        raise ImageError(f"a slice of shape {hu.shape} cannot be projected; give (H, W) in HU, 8 x 8 or more")
    if not np.isfinite(hu).all():
        raise ImageError("the slice holds NaN or infinity; replace them by HU values, -1000 for air")
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise ImageError(f"pixel spacing {spacing} is not two positive lengths in mm")
    if not 0.0 < dose <= 1.0:
        raise ImageError(f"dose {dose:g} is not a fraction of the routine dose; give 0 < dose <= 1")
    if not input_dose >= dose:
        raise ImageError(
            f"the image holds the noise of dose {input_dose:g}; only less can be simulated, not {dose:g}"
        )


class _Scan:
    """What all noise realisations of one slice share: the scan and each ray's photons at full dose."""

    def __init__(
        self, hu: Image, spacing: tuple[float, float], kernel: str, fluence: float, electronic: float
    ) -> None:
        rows, columns = float(spacing[0]), float(spacing[1])
        views = math.ceil(math.pi / 2 * max(hu.shape))
        self.beam: ParallelBeam = parallel_beam((hu.shape[0], hu.shape[1]), views, round(rows / columns, 4))
        self.column_mm = columns
        self.window = kernel_window(kernel, self.beam.ramp_frequencies / columns)
        attenuation = np.clip(MU_WATER * (1.0 + hu / 1000.0), 0.0, None).astype(np.float32)
        lines = np.clip(self.beam.project(attenuation) * columns, 0.0, None)
        cell = columns * self.beam.pitch * _VIEWS / views  # mm of detector and views in one of our rays
        profile = fluence * cell * bowtie(self.beam.offsets * columns)
        self.photons: Image = np.maximum(profile * np.exp(-lines), 1e-6).astype(np.float32)
        self.electronic = electronic**2 * cell

    def noise(self, dose: float, input_dose: float, rng: np.random.Generator) -> Image:
        """What separates the line integrals at ``input_dose`` from those at ``dose``, (views, detectors)."""
        share = 1.0 / dose - (0.0 if math.isinf(input_dose) else 1.0 / input_dose)
        if share <= 0.0:
            return np.zeros_like(self.photons)
        # A Poisson count of mean N / share has relative variance share / N, exactly what is missing.
        mean = np.maximum(self.photons / np.float32(share), _FEWEST_PHOTONS)
        noise: Image = rng.standard_normal(mean.shape, dtype=np.float32) / np.sqrt(mean)
        few = mean < _MANY_PHOTONS
        noise[few] = rng.poisson(mean[few]) / mean[few] - 1.0
        squares = 1.0 / dose**2 - (0.0 if math.isinf(input_dose) else 1.0 / input_dose**2)
        if self.electronic > 0.0:
            spread = np.float32(math.sqrt(squares * self.electronic)) / self.photons
            noise += np.minimum(spread, 1.0) * rng.standard_normal(noise.shape, dtype=np.float32)
        return noise

    def reconstruct(self, noise: Image) -> Image:
        """Noise of line integrals (..., views, detectors) as images (..., H, W), HU."""
        mu = self.beam.filtered_back_projection(noise, self.window) / np.float32(self.column_mm)
        return mu * np.float32(1000.0 / MU_WATER)


def simulate_low_dose(
    hu: NDArray[np.float32],
    spacing: tuple[float, float],
    dose: float,
    rng: np.random.Generator,
    *,
    kernel: Kernel = "smooth",
    input_dose: float = 1.0,
    reference_fluence: float = REFERENCE_FLUENCE,
    electronic_noise: float = ELECTRONIC_NOISE,
) -> NDArray[np.float32]:
    """A slice as it would look at a lower dose.

    HU become attenuation (:data:`MU_WATER`), a parallel beam measures their line integrals through
    a bowtie filter, each ray receives the quantum and electronic noise that the lower dose adds,
    and the filtered back-projection *of the noise alone* is added to the slice: its anatomy, mean
    and sharpness stay as they are. Routine slices hold the noise of dose 1 already, so the quantum
    variance added is ``1 / dose - 1 / input_dose`` times that of the full dose.
    Noise enters linearised, ``(n - mean) / mean`` for ``-log(n / mean)``: without bias, true
    to the second order above some ten photons. A slice that shows only a part of the body lets too
    many photons through; lower the fluence for it.

    Source: Yu, Shiung, Jondal, McCollough, Development and validation of a practical lower-dose-simulation
    tool for optimizing computed tomography scan protocols, Journal of Computer Assisted Tomography 36,
    2012, https://doi.org/10.1097/RCT.0b013e318258e891

    Arguments:
        hu: The slice, float32 (H, W), HU. The isocentre is taken to be pixel (H // 2, W // 2).
        spacing: Row and column spacing in mm.
        dose: Fraction of the routine dose, in (0, 1].
        rng: Source of the noise.
        kernel: Reconstruction kernel, one of :data:`KERNELS`.
        input_dose: Dose whose noise ``hu`` holds; ``math.inf`` for a noise-free image.
        reference_fluence: Photons at dose 1, see :data:`REFERENCE_FLUENCE`.
        electronic_noise: Read-out noise in photons, see :data:`ELECTRONIC_NOISE`.

    Returns:
        Float32 (H, W), HU.

    Raises:
        ImageError: The slice is not 2-D or not finite, or the spacing, dose or kernel make no sense.
    """
    return next(
        noise_realisations(
            hu,
            spacing,
            dose,
            1,
            rng,
            kernel=kernel,
            input_dose=input_dose,
            reference_fluence=reference_fluence,
            electronic_noise=electronic_noise,
        )
    )


def noise_realisations(
    hu: NDArray[np.float32],
    spacing: tuple[float, float],
    dose: float,
    n: int,
    rng: np.random.Generator,
    *,
    kernel: Kernel = "smooth",
    input_dose: float = 1.0,
    reference_fluence: float = REFERENCE_FLUENCE,
    electronic_noise: float = ELECTRONIC_NOISE,
) -> Iterator[NDArray[np.float32]]:
    """Several low-dose versions of one slice, which share its projections.

    Arguments:
        n: How many; the others are those of :func:`simulate_low_dose`.

    Yields:
        Float32 (H, W), HU, n times.

    Raises:
        ImageError: As for :func:`simulate_low_dose`, before the first image is asked for.
    """
    image = np.asarray(hu, dtype=np.float32)
    _check(image, spacing, dose, input_dose)
    scan = _Scan(image, spacing, kernel, reference_fluence, electronic_noise)
    return (image + scan.reconstruct(scan.noise(dose, input_dose, rng)) for _ in range(n))


def dose_pair(
    hu: NDArray[np.float32],
    spacing: tuple[float, float],
    dose: float,
    rng: np.random.Generator,
    *,
    kernel: Kernel = "smooth",
    reference_fluence: float = REFERENCE_FLUENCE,
    electronic_noise: float = ELECTRONIC_NOISE,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A noise-free image at a low and at the full dose; both share the full dose's noise.

    Arguments are those of :func:`simulate_low_dose`.

    Returns:
        Low dose ``x`` and full dose ``y``, float32 (H, W), HU.

    Raises:
        ImageError: As for :func:`simulate_low_dose`.
    """
    image = np.asarray(hu, dtype=np.float32)
    _check(image, spacing, dose, math.inf)
    scan = _Scan(image, spacing, kernel, reference_fluence, electronic_noise)
    full, more = scan.reconstruct(np.stack([scan.noise(1.0, math.inf, rng), scan.noise(dose, 1.0, rng)]))
    return image + full + more, image + full
