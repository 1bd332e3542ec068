"""The audit's figures by tissue, structure and frequency."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from .figures import figure
from .leakage import Seen
from .where import TISSUE_RANGES, by_frequency, by_structure, by_tissue

__all__ = ["leakage_by_tissue", "places", "quiet"]

Image = npt.NDArray[np.float32]
_LEAST_AREA = 0.005  # tissues that cover less are left out


def quiet(x: Image, denoised: Image) -> Image:
    """The slice without noise: ``f(x)`` where it has the slice's size, else ``x`` smoothed."""
    return denoised if denoised.shape == x.shape else gaussian_filter(x, 1.5)


def places(
    std: Image, changes: Image, clean: Image, noise: Image, spacing: tuple[float, float] | None
) -> dict[str, Any]:
    """Where the invariance lies and how fine it is.

    Arguments:
        std: The map (H, W), HU.
        changes: The samples' changes (K, H, W), HU.
        clean: The slice without noise (H, W), HU.
        noise: Noise realisations (N, H, W), HU.
        spacing: Row and column spacing in mm, where known.
    """
    found: dict[str, Any] = {}
    for tissue in by_tissue(std, clean):
        if tissue.area >= _LEAST_AREA:
            found[tissue.tissue] = figure(
                100 * tissue.share,
                "%",
                f"Its share of the map's variance; it covers {100 * tissue.area:.0f} % of the image, with a "
                f"spread of {tissue.std:.1f} HU.",
            ) | {"title": f"Of it in {tissue.tissue}", "std": tissue.std, "area": tissue.area}
    structure = by_structure(std, clean)
    if structure is not None:
        found["flat"] = figure(
            structure.ratio,
            "",
            "Spread where the image is flat, over the spread at its edges: below 1 edges are hidden most.",
        ) | {
            "title": "Flat against structured",
            "low": structure.low,
            "high": structure.high,
            "interval": "95 %",
            "n": structure.pixels,
        }
    if changes.any() and noise.any():
        bands = by_frequency(changes, noise, spacing)
        found["frequency"] = figure(
            bands.median_changes,
            bands.unit,
            f"Half of the changes' energy lies below; half of the noise's below {bands.median_noise:.2g}.",
            len(changes),
        ) | {"title": "Fineness of the changes", "noise": bands.median_noise}
    return found


def leakage_by_tissue(seen: Seen, clean: Image) -> dict[str, Any]:
    """Leakage counted over the places of each tissue, for layers whose output is a map."""
    height, width = seen.moved.shape[1:]
    if height < 8 or width < 8:
        return {}
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * side / n, side - 1).astype(int)
        for n, side in zip((height, width), clean.shape, strict=True)
    )
    small = clean[rows][:, columns]
    found = {}
    for tissue, (low, high) in TISSUE_RANGES.items():
        inside = (small >= low) & (small < high)
        if inside.mean() >= _LEAST_AREA:
            found[tissue] = figure(
                seen.leakage(inside), "", f"Leakage of the shown samples at the places of {tissue}."
            ) | {"title": f"Leakage in {tissue}"}
    return found
