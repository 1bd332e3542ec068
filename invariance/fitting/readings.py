"""The readings of several layers, fitted on the first slices of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ctinv.adapters.base import Denoiser
from ctinv.invariance.infra.randomness import Purpose, generator
from ctinv.invariance.presets import Preset
from ctinv.invariance.reading.fit_reading import ReadingFit
from ctinv.invariance.reading.reading import Reading, ReadingScores
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.reader import Reader

__all__ = ["FittedReading", "fit_readings"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
_HELD = 2


@dataclass(frozen=True)
class FittedReading:
    """A reading and its error on slices that it was not fitted on."""

    reading: Reading
    scores: ReadingScores


def fit_readings(
    denoiser: Denoiser,
    layers: Sequence[str],
    images: Sequence[Image],
    held: int,
    preset: Preset,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, FittedReading]:
    """Fit a reading for every layer whose output is a map; the others have none.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names of its layers.
        images: Slices (H, W) in HU, those held out first.
        held: How many are held out.
        preset: Sizes and steps.
        seed: Draws places and weights.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: A layer gives values that are not finite.
    """
    config = preset.reading
    tests = images[: min(_HELD, held)]
    learned = images[held : held + max(1, config.slices - len(tests))]
    reader = Reader(denoiser, layers)
    fits: dict[str, ReadingFit] = {}
    for number, image in enumerate([*tests, *learned]):
        z = reader(image[None, None], list(fits) if number else None)
        for name, values in z.items():
            if not number:
                geometry = probe_geometry(values, (image.shape[0], image.shape[1]), preset.vae.patch)
                if not geometry.local:
                    continue
                random = generator(seed, Purpose.READING)
                fits[name] = ReadingFit(geometry, config, random, held=len(tests))
            fits[name].add(values, image)
        if not fits:
            break
        if progress:
            progress("reading", number + 1, len(tests) + len(learned))
    return {name: FittedReading(*fit.fit()) for name, fit in fits.items()}
