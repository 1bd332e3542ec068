"""The low-dose twin of a real slice, whose own dose and kernel must be told from what it shows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from ctinv.adapters._types import Image
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray

from .io.slices import CTSlice
from .ldct import DOSES
from .pairs import region_of
from .simulation.dose import MU_WATER, REFERENCE_FLUENCE, Kernel, noise_realisations, simulate_low_dose

__all__ = ["exposure", "kernel_of", "low_dose", "measured_fluence"]

_ROUTINE = {"chest": 0.5, "abdomen": 1.0}  # routine dose, relative to an abdomen of the same size
_BANDS = ((0.5, 1.0), (0.7, 1.5), (1.0, 2.0))  # widths of the two Gaussians whose difference is taken, pixels
_LIMITS = (1 / 64, 4.0)  # of the reference fluence
_FEWEST = 500  # pixels below which nothing can be told
_SHARP = 55  # number of a Siemens kernel


def low_dose(
    image: CTSlice,
    spacing: tuple[float, float],
    patient: str,
    *,
    seed: int,
    count: int = 1,
    doses: Mapping[str, float] = DOSES,
) -> tuple[Image, Image]:
    """Low-dose versions of a slice, at a fraction of the dose that it was taken with.

    That dose is told from the slice's own noise. The scanner's choice for a body of this size, which would
    be the other way, knows nothing of how thick the slice is: on phantoms with a quarter to all of the
    routine's photons the measured noise level is off by a quarter, the one guessed from the size by half
    (RMS of the logarithm 0.25 and 0.51). It serves where too little soft tissue is seen.

    Arguments:
        image: The slice.
        spacing: Row and column spacing in mm.
        patient: Whose slice it is.
        seed: Decides the noise; it does not depend on which other slices there are.
        count: Noise realisations.
        doses: Fraction of the dose by body part.

    Returns:
        Low dose (count, H, W) and the slice as it is (H, W), float32, HU, from -1024 to 3071.
    """
    name = f"{patient}/{image.source.name if image.source else ''}/{image.meta.get('frame', 0)}"
    noise = rng(seed, Purpose.DOSE, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
    full = image.hu.clip(-1024.0, 3071.0).astype(np.float32)
    region, kernel = region_of(full), kernel_of(image)
    fluence = measured_fluence(full, spacing, kernel, noise) or exposure(full, spacing, region)
    low = noise_realisations(
        full, spacing, doses[region], count, noise, kernel=kernel, reference_fluence=fluence
    )
    return np.stack(list(low)), full


def kernel_of(image: CTSlice) -> Kernel:
    """The simulator's kernel nearest to the one a slice was reconstructed with.

    Vendors name sharp kernels (lung, bone, edge, detail) or number them; all others count as smooth.
    Between which numbers the border lies was measured: of real slices, the noise of B20 to B50 is nearer to
    the simulator's smooth kernel, that of B60, LUNG and BONE nearer to its sharp one.
    """
    text = str(image.meta.get("kernel", "")).lower()
    if any(word in text for word in ("lung", "bone", "edge", "detail", "sharp")):
        return "sharp"
    digits = "".join(c for c in text.split("\\")[0].split(".")[-1] if c.isdigit())
    return "sharp" if text and len(digits) == 2 and int(digits) >= _SHARP else "smooth"


def exposure(hu: Image, spacing: tuple[float, float], region: str) -> float:
    """Photons that automatic exposure control would choose for this body."""
    area = float(np.clip(1.0 + hu / 1000.0, 0.0, None).sum()) * spacing[0] * spacing[1]
    diameter = 2.0 * math.sqrt(area / math.pi)  # of the water cylinder that attenuates as much
    return REFERENCE_FLUENCE * _ROUTINE[region] * math.exp(0.5 * MU_WATER * (min(diameter, 400.0) - 280.0))


def measured_fluence(
    hu: Image, spacing: tuple[float, float], kernel: Kernel, rng: np.random.Generator
) -> float | None:
    """The fluence at which the simulator's routine dose has the noise that the slice already holds.

    The slice and a simulated routine-dose noise image are compared in soft tissue, by the median
    absolute value in three frequency bands. Anatomy can only add to what the slice shows there, so
    the band with the least counts.

    Arguments:
        hu: The slice (H, W), HU.
        spacing: Row and column spacing in mm.
        kernel: The simulator's kernel.
        rng: Source of the simulated noise.

    Returns:
        Photons, as ``reference_fluence`` of the simulator; None where the slice shows too little soft
        tissue to tell.
    """
    inside = _soft_tissue(hu)
    if int(inside.sum()) < _FEWEST:
        return None
    noise = simulate_low_dose(hu, spacing, 1.0, rng, kernel=kernel, input_dose=math.inf) - hu
    ratios = []
    for narrow, wide in _BANDS:
        own, simulated = (_spread(image, narrow, wide, inside) for image in (hu, noise))
        ratios.append(own / max(simulated, 1e-6))
    share = 1.0 / max(min(ratios), 1e-3) ** 2
    return REFERENCE_FLUENCE * float(np.clip(share, *_LIMITS))


def _soft_tissue(hu: Image) -> NDArray[np.bool_]:
    """Pixels well inside soft tissue: smoothed, between -50 and 150 HU, and four pixels from its border."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(hu, 2.0)
    inside = (smooth > -50.0) & (smooth < 150.0) & (hu > -250.0) & (hu < 400.0)
    eroded: NDArray[np.bool_] = ndimage.binary_erosion(inside, iterations=4)
    return eroded


def _spread(image: Image, narrow: float, wide: float, inside: NDArray[np.bool_]) -> float:
    from scipy import ndimage

    band = ndimage.gaussian_filter(image, narrow) - ndimage.gaussian_filter(image, wide)
    return float(np.median(np.abs(band[inside])))
