"""The bench figures of a denoiser: transfer over contrast and dose, noise, bias and streaks of f(x)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.invariance.data.phantoms.phantom import phantom
from ctinv.invariance.data.simulation.dose import noise_realisations
from ctinv.invariance.infra.randomness import Purpose, rng
from scipy.ndimage import gaussian_filter

from .bias import Bias, hu_bias
from .noise import NoiseFigures, noise_figures
from .transfer import Transfer, task_transfer

__all__ = ["BenchFigures", "TransferFigure", "bench_figures"]

_SIDE = 160  # pixels of the uniform phantom
_SPACING = (0.8, 0.8)  # mm
_RADIUS = 12.0  # mm, of the rod
_FINE = 5  # sub-pixels per pixel and direction
_EDGE = 0.6  # mm, blur of the rod's edge
_TISSUE = 50.0  # HU
_BODY = 256  # pixels of the made-up abdomen
_REGION = 64  # pixels of the region whose noise is measured


@dataclass(frozen=True, eq=False)
class TransferFigure:
    """The transfer of one rod at one dose.

    Arguments:
        contrast: Of the rod, HU.
        dose: Fraction of the routine dose.
        image: In x.
        output: In f(x).
    """

    contrast: float
    dose: float
    image: Transfer
    output: Transfer


@dataclass(frozen=True, eq=False)
class BenchFigures:
    """What the bench says of one denoiser.

    Arguments:
        transfers: One for each contrast and dose.
        uniform: Noise of x and of f(x) on uniform tissue, at the first dose.
        patient: Likewise in a made-up abdomen.
        bias: Of f(x), by tissue of that abdomen.
        n: Realisations of each.
    """

    transfers: tuple[TransferFigure, ...]
    uniform: tuple[NoiseFigures, NoiseFigures]
    patient: tuple[NoiseFigures, NoiseFigures]
    bias: tuple[Bias, ...]
    n: int

    def rows(self) -> list[dict[str, float | str]]:
        """The figures as a table: name, unit, x, f(x)."""
        found: list[dict[str, float | str]] = []
        for one in self.transfers:
            for level in (0.5, 0.1):
                name = f"TTF falls to {100 * level:g} %, {one.contrast:+g} HU, dose {one.dose:g}"
                found.append(_row(name, "1/mm", one.image.falls_to(level), one.output.falls_to(level)))
        for place, (image, output) in (("uniform", self.uniform), ("patient", self.patient)):
            found += [
                _row(f"noise, {place}", "HU", image.magnitude, output.magnitude),
                _row(f"NPS peak, {place}", "1/mm", image.peak, output.peak),
                _row(f"NPS mean, {place}", "1/mm", image.mean, output.mean),
                _row(f"streak index, {place}", "", image.streaks, output.streaks),
            ]
        found += [_row(f"bias, {b.tissue}", "HU", math.nan, b.value) for b in self.bias]
        return found


def _row(name: str, unit: str, image: float, output: float) -> dict[str, float | str]:
    return {"figure": name, "unit": unit, "x": image, "f(x)": output}


def bench_figures(
    denoiser: Denoiser,
    *,
    contrasts: Sequence[float] = (-100.0, 30.0, 10.0),
    doses: Sequence[float] = (1.0, 0.25),
    realisations: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchFigures:
    """Measure f(x) as physicists do.

    Every transfer is that of the mean over the realisations with the rod less the mean of the same noise
    without it, for a denoiser treats each contrast and dose differently.

    Arguments:
        denoiser: The denoiser.
        contrasts: Of the rods, HU.
        doses: Fractions of the routine dose.
        realisations: Of each.
        seed: Draws noise and abdomen.
        progress: Called with (stage, done, total).

    Raises:
        ImageError: A contrast that leaves no edge.
    """
    plain = np.full((_SIDE, _SIDE), _TISSUE, dtype=np.float32)
    middle = ((_SIDE - 1) / 2 + 0.3, (_SIDE - 1) / 2 - 0.2)
    rod = _rod(middle)
    transfers = []
    uniform: tuple[NoiseFigures, NoiseFigures] | None = None
    for number, dose in enumerate(doses):
        noise = _noise(plain, _SPACING, dose, realisations, rng(seed, Purpose.PROTOCOL_NOISE, number))
        empty = _denoised(denoiser, plain + noise)
        if uniform is None:
            images = (plain + noise, empty)
            uniform = noise_figures(_region(images[0]), _SPACING), noise_figures(_region(images[1]), _SPACING)
        for contrast in contrasts:
            held = _denoised(denoiser, plain + noise + contrast * rod)
            change = (held - empty).mean(0, dtype=np.float64)
            image = task_transfer(contrast * rod, middle, _RADIUS, _SPACING)
            transfers.append(
                TransferFigure(contrast, dose, image, task_transfer(change, middle, _RADIUS, _SPACING))
            )
            if progress:
                progress("bench", len(transfers), len(doses) * len(contrasts))
    assert uniform is not None
    body = phantom(rng(seed, Purpose.PHANTOM, 0), _BODY, kind="abdomen", lesions=0)
    noise = _noise(
        body.hu, body.spacing, doses[0], realisations, rng(seed, Purpose.PROTOCOL_NOISE, len(doses))
    )
    seen = _denoised(denoiser, body.hu + noise)
    patient = tuple(noise_figures(_region(i), body.spacing) for i in (body.hu + noise, seen))
    return BenchFigures(
        tuple(transfers), uniform, (patient[0], patient[1]), hu_bias(seen, body.hu), realisations
    )


def _rod(middle: tuple[float, float]) -> Image:
    cells = (np.arange(_SIDE * _FINE) + 0.5) / _FINE - 0.5
    distance = np.hypot((cells[:, None] - middle[1]) * _SPACING[0], (cells - middle[0]) * _SPACING[1])
    soft = gaussian_filter((distance <= _RADIUS).astype(np.float64), _EDGE / _SPACING[0] * _FINE)
    return np.asarray(soft.reshape(_SIDE, _FINE, _SIDE, _FINE).mean((1, 3)), dtype=np.float32)


def _noise(
    hu: Image, spacing: tuple[float, float], dose: float, count: int, draws: np.random.Generator
) -> Image:
    drawn = noise_realisations(hu, spacing, dose, count, draws, input_dose=math.inf)
    return np.stack([one - hu for one in drawn])


def _denoised(denoiser: Denoiser, images: Image) -> Image:
    """f of images (N, H, W); where the network crops, the border is theirs."""
    found = images.copy()
    crop = denoiser.crop
    for number, image in enumerate(images):
        clean = np.asarray(denoiser.denoise(image[None, None]), dtype=np.float32)[0, 0]
        found[number, crop : crop + clean.shape[0], crop : crop + clean.shape[1]] = clean
    return found


def _region(images: Image) -> Image:
    """The middle of images."""
    top, left = ((side - _REGION) // 2 for side in images.shape[1:])
    return images[:, top : top + _REGION, left : left + _REGION]
