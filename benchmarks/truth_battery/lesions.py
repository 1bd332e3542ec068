"""Small dark lesions that a network drops by construction: is the size found from which on it keeps them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ctinv import adapters, invariance
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import CTSlice
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.probing.lesions import Lesion, LesionGrid, calm_place
from truth_networks import DropsSmallDark, KeepsAll

__all__ = ["lesion_truth", "room"]

STEPS = {5: 1.5, 7: 2.0}
"""Side of the square that decides what is dropped, and step of the grid of sizes, in pixels. Larger squares
drop large lesions that are fainter than the noise, and what such a network drops depends on the noise too."""

SMALLEST = 2.2  # pixels
SHOWN = (8.0, 10.0)
"""Detectability in the image, at the true threshold, of the grid's lesions: so high that a network which
drops nothing shows them two steps earlier."""

SMALL = 5.5
"""Detectability in the image of the small lesion that both networks are asked about."""

_SPACING = (0.8, 0.8)


def room(image: CTSlice, most: float = 16.0) -> float:
    """Diameter of the largest lesion that the slice has calm tissue for, in pixels; 0 where for none."""
    spacing = image.spacing or _SPACING
    for size in np.arange(most, 2, -0.5):
        try:
            calm_place(image.hu, float(size) * max(spacing), spacing)
        except ImageError:
            continue
        return float(size)
    return 0.0


def lesion_truth(
    slices: Sequence[CTSlice], seed: int, *, realisations: int = 64, side: int | None = None
) -> dict[str, Any]:
    """Probe a network that drops small dark lesions, and one that keeps them.

    Arguments:
        slices: Slices to try in turn; the first with calm tissue for the lesions is taken.
        seed: Draws the network, by its side, and the noise.
        realisations: Noise realisations.
        side: Side of the network's square in pixels; drawn from 5 and 7, as there is room, where None.

    Returns:
        ``true_mm``, ``sizes_mm`` and, per contrast, ``found_mm``, ``found_in_image_mm`` and
        ``steps_off``, with what both networks say of one small lesion.

    Raises:
        ImageError: No slice has calm tissue for the lesions.
    """
    wanted = {s: DropsSmallDark(s).diameter + 1 for s in ([side] if side else STEPS)}
    image, space = next(((one, r) for one in slices if (r := room(one)) >= min(wanted.values())), (None, 0.0))
    if image is None:
        raise ImageError("no slice has calm soft tissue for the lesions; give another with --image")
    fitting = [s for s, needs in wanted.items() if needs <= space]
    dropper = DropsSmallDark(fitting[int(rng(seed, Purpose.TRUTH_LESION).integers(len(fitting)))])
    pixel = max(image.spacing or _SPACING)
    last = min(space, dropper.diameter + 4)
    steps = np.arange(SMALLEST, last + 1e-6, STEPS[dropper.side])
    sizes = tuple(round(float(step) * pixel, 2) for step in steps)
    true = dropper.diameter * pixel

    def look(net: Any, layers: list[str], lesion: Lesion, grid: LesionGrid | None = None) -> Any:
        denoiser = adapters.wrap(net, intensity="hu")
        return invariance.probe(
            denoiser,
            layers,
            image,
            lesion,
            grid=grid,
            realisations=realisations,
            seed=seed,
            spacing=image.spacing,
        )

    # Detectability in the image is proportional to contrast: one look tells which contrasts to ask for.
    (first,) = look(KeepsAll(), ["blur"], Lesion(true, -20.0), LesionGrid(sizes[:1], (-20.0,)))
    at_true, at_smallest = (f.image.value for f in (first.finding, first.findings[0]))
    contrasts = tuple(round(-20 * wanted / at_true, 1) for wanted in SHOWN)
    small = Lesion(sizes[0], round(-20 * SMALL / at_smallest, 1))
    (dropped,) = look(dropper, ["narrow"], small, LesionGrid(sizes, contrasts))
    (kept,) = look(KeepsAll(), ["blur"], small)
    place = int(np.searchsorted(sizes, true))
    rows = {}
    for contrast, found, own in zip(
        contrasts, dropped.thresholds("layer"), dropped.thresholds("image"), strict=True
    ):
        index = len(sizes) if found is None else sizes.index(found)
        rows[f"{contrast:g}"] = {
            "found_mm": found,
            "found_in_image_mm": own,
            "steps_off": abs(index - place),
        }
    return {
        "source": str(getattr(image, "source", None) or "array"),
        "side_px": dropper.side,
        "true_mm": true,
        "sizes_mm": list(sizes),
        "contrasts": rows,
        "lesion": str(small),
        "dropper": _said(dropped.finding),
        "keeper": _said(kept.finding),
        "level": dropped.level,
    }


def _said(finding: Any) -> dict[str, Any]:
    return {"says": finding.says(), "layer": finding.layer.value, "image": finding.image.value}
