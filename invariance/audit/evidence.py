"""What an audit looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.invariance.fitting.novelty import NoveltyTest
from ctinv.invariance.networks.fit_record import FitScores

if TYPE_CHECKING:
    from ctinv.adapters.base import Denoiser
    from ctinv.invariance.refinement.observer import Observer
    from ctinv.invariance.refinement.refine import Refined

__all__ = ["Evidence", "Mask", "rms"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an audit looks at: one image, its samples, and the layer.

    Arguments:
        denoiser: The denoiser.
        observer: Its layer.
        x: The image (H, W), HU.
        reconstruction: ``D(E(x))``, (H, W), HU.
        flow: Whole samples of the flow (K, H, W), HU.
        refined: The same refined, or None.
        rho: Noise ratio of the refined samples.
        std: The map that is shown, (H, W), HU.
        std_flow: The flow's own map, (H, W), HU.
        noise: Noise realisations of the image, (N, H, W), HU.
        noise_moves: How far noise moves the layer.
        scores: Figures of the fit, where known.
        why: Why there was no refinement, as a clause.
        seed: Draws the controls.
        reading: ``x_R``, the image read back from the layer (H, W), HU, where it can be.
        reading_code: ``D(E(x_R))``, (H, W), HU.
        reread: By how much ``x_R`` moves when refined samples, and refined noise realisations, are read
            instead of the image, (K, H, W) each, HU.
        noise_refined: Noise realisations refined like samples, where there was refinement.
        std_noise: Their spread, (H, W), HU.
        spacing: Row and column spacing in mm, where known.
        novelty: What the fitting slices look like, where known.
    """

    denoiser: Denoiser
    observer: Observer
    x: Image
    reconstruction: Image
    flow: Image
    refined: Refined | None
    rho: float
    std: Image
    std_flow: Image
    noise: Image
    noise_moves: float
    scores: FitScores | None
    why: str
    seed: int
    reading: Image | None = None
    reading_code: Image | None = None
    reread: tuple[Image, ...] = ()
    noise_refined: Refined | None = None
    std_noise: Image | None = None
    spacing: tuple[float, float] | None = None
    novelty: NoveltyTest | None = None


def rms(image: Any, inside: Mask) -> float:
    """Root mean square of images (..., H, W) over some of their pixels (H, W)."""
    return float(np.sqrt(np.mean(np.square(np.asarray(image, dtype=np.float64)[..., inside]))))
