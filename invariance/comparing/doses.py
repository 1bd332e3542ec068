"""One slice at several doses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ctinv.adapters._types import Progress
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.lowdose import exposure, kernel_of, measured_fluence
from ctinv.invariance.data.pairs import region_of
from ctinv.invariance.data.simulation.dose import simulate_low_dose
from ctinv.invariance.explaining.explainer import Explainer
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.refinement.refine import RHO
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.result import AnalysisResult

__all__ = ["at_doses", "dose_series", "parse_doses"]


def parse_doses(text: str) -> tuple[float, ...]:
    """Read fractions of the slice's dose such as ``1,0.5,0.25,0.1``; falling, each once.

    Raises:
        CtinvError: Something else.

    Example:
        >>> parse_doses("0.25,1,0.5")
        (1.0, 0.5, 0.25)
    """
    try:
        doses = {float(part) for part in text.split(",")}
    except ValueError:
        doses = set()
    if not doses or not all(0 < dose <= 1 for dose in doses):
        raise CtinvError(
            f"{text!r} is no list of doses; give fractions of the slice's own dose, such as 1,0.5,0.25"
        )
    return tuple(sorted(doses, reverse=True))


def dose_series(image: CTSlice, doses: Sequence[float], seed: int = 0) -> list[CTSlice]:
    """A slice as it would look at fractions of its own dose, which is told from its noise.

    All doses start from the same random numbers: what differs between them is the dose.

    Arguments:
        image: The slice; its spacing must be known.
        doses: Fractions in (0, 1]; 1 leaves the slice as it is.
        seed: Draws the noise.

    Returns:
        One slice for each dose, named after the slice and the dose.

    Raises:
        ImageError: The slice does not tell its pixel spacing.
        CtinvError: A dose that is not in (0, 1].
    """
    parse_doses(",".join(str(dose) for dose in doses))
    if image.spacing is None:
        raise ImageError(
            f"{image.name} does not tell its pixel spacing, which the dose simulation needs; give DICOM or "
            "another format that does"
        )
    kernel, numbers = kernel_of(image), rng(seed, Purpose.DOSE_SERIES)
    fluence = measured_fluence(image.hu, image.spacing, kernel, numbers)
    fluence = fluence or exposure(image.hu, image.spacing, region_of(image.hu))
    series = []
    for dose in doses:
        hu = image.hu
        if dose < 1:
            noise = rng(seed, Purpose.DOSE_SERIES, 1)
            hu = simulate_low_dose(
                image.hu, image.spacing, dose, noise, kernel=kernel, reference_fluence=fluence
            )
            hu = np.where(image.valid, hu, image.hu).astype(np.float32)
        name = f"{image.name} at dose {dose:g}"
        series.append(
            replace(image, hu=hu, meta={**image.meta, "simulated_dose": dose, "simulated_name": name})
        )
    return series


def at_doses(
    analysis: AnalysisResult,
    denoiser: Denoiser,
    doses: Sequence[float],
    progress: Progress | None = None,
) -> list[Explanation]:
    """A finished analysis again, at fractions of its slice's dose, by the same fit.

    Arguments:
        analysis: The analysis, made with the cache.
        denoiser: The model that it is of.
        doses: Fractions in (0, 1].
        progress: Called with (stage, done, total).

    Returns:
        One explanation for each dose.

    Raises:
        CtinvError: The fit is no longer in the cache, or the slice does not tell its spacing.
    """
    meta = analysis.meta
    folder = None if meta.fit is None or meta.fit.key is None else cache_root() / "explainers" / meta.fit.key
    if folder is None or not (folder / "config.json").is_file():
        raise CtinvError(
            f"the fit of {meta.model} {meta.layer} is not in the cache, which doses need; run ctinv analyze "
            "again without --no-cache"
        )
    explainer = Explainer.load(folder, denoiser)
    name = meta.source or "image"
    one = CTSlice(
        np.array(analysis.x),
        np.ones(analysis.x.shape, dtype=bool),
        meta.spacing,
        meta={"simulated_name": name},
    )
    seed = meta.seed or 0
    return [
        explainer.explain(
            at,
            samples=meta.samples or 100,
            seed=seed,
            refine=meta.refinement.samples or 0,
            rho=meta.refinement.rho or RHO,
            progress=progress,
        )
        for at in dose_series(one, doses, seed)
    ]
