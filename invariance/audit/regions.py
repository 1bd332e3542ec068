"""Where invariances lie: in which tissues, in flat or structured regions, at which frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import noise_power
from ctinv.invariance.infra.randomness import Purpose, rng
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from .leakage import Seen
from .record import Figure, Fineness, Regions, TissuePart, Tissues, figure

__all__ = [
    "TISSUE_NAMES",
    "TISSUE_RANGES",
    "Frequencies",
    "Structure",
    "TissueShare",
    "by_frequency",
    "by_structure",
    "by_tissue",
    "leakage_by_tissue",
    "places",
    "quiet",
]

_Numbers = npt.NDArray[np.float64]

TISSUE_NAMES = {
    "air": "air",
    "lung": "lung",
    "fat": "fat",
    "soft": "soft tissue",
    "contrast": "contrast medium",
    "bone": "bone",
}
"""What tissues are called in sentences."""

TISSUE_RANGES: dict[str, tuple[float, float]] = {
    "air": (-np.inf, -950.0),
    "lung": (-950.0, -190.0),
    "fat": (-190.0, -30.0),
    "soft": (-30.0, 110.0),
    "contrast": (110.0, 300.0),
    "bone": (300.0, np.inf),
}
"""HU from (included) and to (not included). By HU alone, ``lung`` holds also what lies between air and
tissue, such as the skin's edge, and ``contrast`` (vessels and organs with contrast medium) also spongy
bone."""

_BODY = -900.0
_LEAST_AREA = 0.005  # tissues that cover less of the image are left out
_SQUARE = 16  # pixels; neighbours within are alike, so that whole squares are drawn anew


@dataclass(frozen=True)
class TissueShare:
    """The invariance in one tissue.

    Arguments:
        tissue: Key of :data:`TISSUE_RANGES`.
        area: Its share of the pixels.
        share: Its share of the summed variance.
        std: Root of its mean variance, HU; 0 where there is no such tissue.
    """

    tissue: str
    area: float
    share: float
    std: float


@dataclass(frozen=True)
class Structure:
    """The invariance in flat regions against structured ones.

    Arguments:
        flat: Mean standard deviation in flat regions, HU.
        structured: The same in structured regions, HU.
        ratio: ``flat`` over ``structured``: above 1 more is hidden where the image is flat.
        low: Lower end of the ratio's 95 % interval.
        high: Upper end.
        pixels: Pixels in either part.
    """

    flat: float
    structured: float
    ratio: float
    low: float
    high: float
    pixels: int


@dataclass(frozen=True, eq=False)
class Frequencies:
    """Radial power spectra of changes and of noise.

    Arguments:
        frequency: Mean frequency of each ring, (R,).
        changes: Mean power of the changes in each ring, (R,), HU^2 times the unit of area.
        noise: The same of the noise.
        unit: ``cycles/mm``, or ``cycles/pixel`` where the spacing is not known.
        median_changes: Half of the changes' energy lies below this frequency.
        median_noise: The same of the noise.
        low_share: Share of the changes' energy below a tenth of the highest frequency along an axis.
        low_noise: The same of the noise.
    """

    frequency: _Numbers
    changes: _Numbers
    noise: _Numbers
    unit: str
    median_changes: float
    median_noise: float
    low_share: float
    low_noise: float


def by_tissue(std: Image, image: Image) -> tuple[TissueShare, ...]:
    """Divide the invariance by tissue.

    Arguments:
        std: Standard deviation of the samples (H, W), HU.
        image: The slice (H, W) without noise, such as ``f(x)`` or ``x`` smoothed, HU.

    Raises:
        ImageError: Shapes differ.

    Example:
        >>> image = np.array([[-1000.0, 50.0]], np.float32)
        >>> [(t.tissue, t.share) for t in by_tissue(np.array([[0, 3.0]], np.float32), image) if t.area]
        [('air', 0.0), ('soft', 1.0)]
    """
    _alike(std, image)
    variance = np.square(std, dtype=np.float64)
    total = float(variance.sum())
    shares = []
    for tissue, (low, high) in TISSUE_RANGES.items():
        inside = (image >= low) & (image < high)
        part = float(variance[inside].sum())
        count = int(inside.sum())
        shares.append(
            TissueShare(
                tissue,
                area=count / image.size,
                share=part / total if total > 0 else 0.0,
                std=float(np.sqrt(part / count)) if count else 0.0,
            )
        )
    return tuple(shares)


def by_structure(
    std: Image,
    image: Image,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    part: float = 0.25,
    draws: int = 1000,
    seed: int = 0,
) -> Structure | None:
    """Compare the invariance where the image is flat with where it has structure.

    Flat are the pixels with the smallest gradients, structured those with the largest. The interval
    comes from drawing squares of 16 x 16 pixels anew (block bootstrap).

    Source: Kuensch, The jackknife and the bootstrap for general stationary observations, Annals of
    Statistics 17, 1989, https://doi.org/10.1214/aos/1176347265

    Arguments:
        std: Standard deviation of the samples (H, W), HU.
        image: The slice (H, W) without noise, HU.
        mask: Where to look; the body where None.
        part: Share of the pixels that count as flat, and as structured.
        draws: Bootstrap draws.
        seed: Of these.

    Returns:
        The comparison; None where there are fewer than 64 pixels on either side, or structured
        regions hold no invariance at all.

    Raises:
        ImageError: Shapes differ.
    """
    _alike(std, image)
    region = image > _BODY if mask is None else mask
    if part * region.sum() < 64:
        return None
    gradient = gaussian_gradient_magnitude(np.asarray(image, dtype=np.float64), 1.0)
    low, high = np.quantile(gradient[region], (part, 1 - part))
    sides = region & (gradient <= low), region & (gradient >= high)
    sums = np.stack([_squares(std * side) for side in sides])
    counts = np.stack([_squares(side.astype(np.float64)) for side in sides])
    flat, structured = sums.sum(1) / counts.sum(1)
    if structured <= 0:
        return None
    held = counts.any(0)
    sums, counts = sums[:, held], counts[:, held]
    drawn = rng(seed, Purpose.STRUCTURE_BOUNDS).multinomial(
        sums.shape[1], np.full(sums.shape[1], 1 / sums.shape[1]), draws
    )
    a, b = ((drawn @ s) / np.maximum(drawn @ c, 1) for s, c in zip(sums, counts, strict=True))
    bounds = np.quantile(a / np.maximum(b, 1e-12), (0.025, 0.975))
    return Structure(
        float(flat),
        float(structured),
        float(flat / structured),
        float(bounds[0]),
        float(bounds[1]),
        int(min(side.sum() for side in sides)),
    )


def _squares(values: npt.NDArray[np.floating]) -> _Numbers:
    """Sums over squares, those at the right and lower edge cut short, flattened."""
    rows, columns = (range(0, side, _SQUARE) for side in values.shape)
    whole = np.asarray(values, dtype=np.float64)
    sums: _Numbers = np.add.reduceat(np.add.reduceat(whole, rows, 0), columns, 1).ravel()
    return sums


def by_frequency(
    changes: Image, noise: Image, spacing: tuple[float, float] | None = None, *, bins: int | None = None
) -> Frequencies:
    """Radial power spectrum of the samples' changes beside that of noise.

    Of several changes the part that differs between them counts, as in the std map; their common
    part is bias. Frequencies beyond the axes' highest, in the corners, count in the shares only.

    Arguments:
        changes: ``x' - x`` (K, H, W), HU.
        noise: Noise realisations (M, H, W) of mean zero, HU.
        spacing: Row and column spacing in mm, where known.
        bins: Rings; as many as half the shorter side where None.

    Raises:
        ImageError: No changes or noise, images of different shape, or a spacing that is not positive.
    """
    if changes.shape[1:] != noise.shape[1:]:
        raise ImageError(f"changes are {changes.shape[1:]}, noise is {noise.shape[1:]}; they must agree")
    pixel = spacing or (1.0, 1.0)
    many = len(changes) > 1
    spectra = (
        noise_power(changes, pixel, about="ensemble" if many else "nothing"),
        noise_power(noise, pixel, about="nothing"),
    )
    radius = np.hypot(spectra[0].rows[:, None], spectra[0].columns[None, :]).ravel()
    limit = 0.1 * min(np.abs(spectra[0].rows).max(), np.abs(spectra[0].columns).max())
    order = np.argsort(radius, kind="stable")
    medians, low = [], []
    for spectrum in spectra:
        energy = spectrum.nps.ravel()[order]
        running = np.cumsum(energy) / max(float(energy.sum()), 1e-30)
        middle = min(int(np.searchsorted(running, 0.5)), len(order) - 1)
        medians.append(float(radius[order][middle]))
        inside = int(np.searchsorted(radius[order], limit, "right"))
        low.append(float(running[inside - 1]))
    frequency, power = spectra[0].radial(bins)
    unit = "cycles/pixel" if spacing is None else "cycles/mm"
    return Frequencies(
        frequency, power, spectra[1].radial(bins)[1], unit, medians[0], medians[1], low[0], low[1]
    )


def _alike(std: Image, image: Image) -> None:
    if std.shape != image.shape or std.ndim != 2:
        raise ImageError(f"the map is {std.shape}, the image {image.shape}; both must be one slice (H, W)")


def quiet(x: Image, denoised: Image) -> Image:
    """The slice without noise: ``f(x)`` where it has the slice's size, else ``x`` smoothed."""
    return denoised if denoised.shape == x.shape else gaussian_filter(x, 1.5)


def places(
    std: Image, changes: Image, clean: Image, noise: Image, spacing: tuple[float, float] | None
) -> Regions:
    """Where the invariance lies and how fine it is.

    Arguments:
        std: The map (H, W), HU.
        changes: The samples' changes (K, H, W), HU.
        clean: The slice without noise (H, W), HU.
        noise: Noise realisations (N, H, W), HU.
        spacing: Row and column spacing in mm, where known.
    """
    tissues = {
        part.tissue: TissuePart(
            value=100 * part.share,
            unit="%",
            n=1,
            meaning=f"Share of the map's variance that lies in {TISSUE_NAMES[part.tissue]}, which covers "
            f"{100 * part.area:.0f} % of the image; the spread there is {part.std:.1f} HU.",
            title=f"Share of the hidden changes in {TISSUE_NAMES[part.tissue]}",
            std=part.std,
            area=part.area,
        )
        for part in by_tissue(std, clean)
        if part.area >= _LEAST_AREA
    }
    flat = frequency = None
    structure = by_structure(std, clean)
    if structure is not None:
        flat = Figure(
            value=structure.ratio,
            unit="",
            n=structure.pixels,
            low=structure.low,
            high=structure.high,
            interval="95 %",
            meaning="Spread where the image is flat, over the spread at its edges: below 1 edges are hidden "
            "most.",
            title="Spread where it is flat, over that at edges",
        )
    if changes.any() and noise.any():
        bands = by_frequency(changes, noise, spacing)
        frequency = Fineness(
            value=bands.median_changes,
            unit=bands.unit,
            n=len(changes),
            meaning="Half of the changes' energy lies below; half of the noise's below "
            f"{bands.median_noise:.2g}.",
            title="Median frequency of the hidden changes",
            noise=bands.median_noise,
        )
    return Regions(**tissues, flat=flat, frequency=frequency)


def leakage_by_tissue(seen: Seen, clean: Image) -> Tissues:
    """Leakage counted over the places of each tissue, for layers whose output is a map."""
    height, width = seen.moved.shape[1:]
    if height < 8 or width < 8:
        return Tissues()
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * side / n, side - 1).astype(int)
        for n, side in zip((height, width), clean.shape, strict=True)
    )
    small = clean[rows][:, columns]
    figures = {}
    for tissue, (low, high) in TISSUE_RANGES.items():
        inside = (small >= low) & (small < high)
        if inside.mean() >= _LEAST_AREA:
            name = TISSUE_NAMES[tissue]
            meaning = f"Leakage of the shown samples at the places of {name}."
            figures[tissue] = figure(seen.leakage(inside), "", meaning, title=f"Leakage in {name}")
    return Tissues(**figures)
