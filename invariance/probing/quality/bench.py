"""The bench figures of a denoiser: transfer over contrast and dose, noise, bias and streaks of f(x)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.phantoms.phantom import phantom
from ctinv.invariance.data.simulation.dose import REFERENCE_FLUENCE, noise_realisations
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .bias import Bias, hu_bias
from .noise import NoiseFigures, noise_figures
from .transfer import Transfer, task_transfer

__all__ = ["LEVELS", "BenchFigures", "BenchRow", "NoiseFigure", "TransferFigure", "bench_figures"]

_SIDE = 160  # pixels of the uniform phantom
_SPACING = (0.8, 0.8)  # mm
_RADIUS = 12.0  # mm, of the rod
_FINE = 5  # sub-pixels per pixel and direction
_EDGE = 0.6  # mm, blur of the rod's edge
_TISSUE = 50.0  # HU
_CYLINDER = 60.0  # mm, radius of the uniform phantom
_NOISE = 12.0  # HU, of a routine body slice of 1 to 2 mm
_CALIBRATION = 10**6  # number of the noise by which the photons are chosen, beyond those of doses
_BODY = 256  # pixels of the made-up abdomen
_REGION = 64  # pixels of the region whose noise is measured
_MIDDLE = ((_SIDE - 1) / 2 + 0.3, (_SIDE - 1) / 2 - 0.2)  # of the rod, between pixels
_GROUPS = 8  # of realisations, one of which the jackknife leaves out
_FEWEST = 2
_ROUNDING = 1e-9

LEVELS = (0.5, 0.1)
"""Levels of the transfer whose frequencies are stated."""


@dataclass(frozen=True, eq=False)
class TransferFigure:
    """The transfer of one rod at one dose.

    Arguments:
        contrast: Of the rod, HU.
        dose: Fraction of the routine dose.
        image: In x.
        output: In f(x).
        errors: Level, a share of 1, to the standard error over the realisations of the frequency at which the
            transfer of f(x) falls to it, cycles per mm.
    """

    contrast: float
    dose: float
    image: Transfer
    output: Transfer
    errors: Mapping[float, float]


@dataclass(frozen=True, eq=False)
class NoiseFigure:
    """The noise on one background.

    Arguments:
        place: ``uniform`` or ``patient``.
        image: Of x.
        output: Of f(x).
        errors: Standard errors over the realisations of magnitude, peak, mean and streak index of f(x).
    """

    place: str
    image: NoiseFigures
    output: NoiseFigures
    errors: tuple[float, float, float, float]


@dataclass(frozen=True)
class BenchRow:
    """One figure of the bench.

    Arguments:
        figure: Its name.
        unit: Its unit; empty for none.
        image: In x; None where it is 0 by definition.
        output: In f(x).
        error: Standard error of the latter over the realisations; None where there are too few, or where all
            parts of them say the same, as of a peak that stays in its ring of the spectrum.
    """

    figure: str
    unit: str
    image: float | None
    output: float
    error: float | None


@dataclass(frozen=True, eq=False)
class BenchFigures:
    """What the bench says of one denoiser.

    Arguments:
        transfers: One for each contrast and dose.
        noise: On uniform tissue and in a made-up abdomen, at the first dose.
        bias: Of f(x), by tissue of that abdomen.
        n: Realisations of each.
    """

    transfers: tuple[TransferFigure, ...]
    noise: tuple[NoiseFigure, ...]
    bias: tuple[Bias, ...]
    n: int

    def rows(self) -> tuple[BenchRow, ...]:
        """The figures as a table."""
        rows: list[BenchRow] = []
        for one in self.transfers:
            for level in LEVELS:
                name = f"TTF falls to {100 * level:g} %, {one.contrast:+g} HU, dose {one.dose:g}"
                values = one.image.falls_to(level), one.output.falls_to(level), one.errors[level]
                rows.append(_row(name, "1/mm", *values))
        for noise in self.noise:
            names = (("noise", "HU"), ("NPS peak", "1/mm"), ("NPS mean", "1/mm"), ("streak index", ""))
            values_of = zip(_four(noise.image), _four(noise.output), noise.errors, strict=True)
            for (name, unit), values in zip(names, values_of, strict=True):
                rows.append(_row(f"{name}, {noise.place}", unit, *values))
        return (*rows, *(_row(f"bias, {b.tissue}", "HU", None, b.value, b.error) for b in self.bias))


def _row(figure: str, unit: str, image: float | None, output: float, error: float) -> BenchRow:
    told = math.isfinite(error) and error > _ROUNDING * abs(output)
    return BenchRow(figure, unit, image, output, error if told else None)


def _four(figures: NoiseFigures) -> tuple[float, float, float, float]:
    return figures.magnitude, figures.peak, figures.mean, figures.streaks


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
    without it, for a denoiser treats each contrast and dose differently. Standard errors are those of the
    jackknife that leaves an eighth of the realisations out.

    Arguments:
        denoiser: The denoiser.
        contrasts: Of the rods, HU.
        doses: Fractions of the routine dose.
        realisations: Of each.
        seed: Draws noise and abdomen.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: Fewer than two realisations, or doses that are none.
        ImageError: A contrast that leaves no edge.
    """
    if realisations < _FEWEST or not doses or not all(0 < dose <= 1 for dose in doses):
        raise CtinvError(
            f"{realisations} realisations at doses {', '.join(f'{d:g}' for d in doses)} make no bench; give "
            f"{_FEWEST} or more, and fractions of the routine dose"
        )
    plain = _cylinder()
    fluence = _fluence(plain)
    rod = _rod(_MIDDLE)
    transfers: list[TransferFigure] = []
    noises: list[NoiseFigure] = []
    for number, dose in enumerate(doses):
        draws = rng(seed, Purpose.PROTOCOL_NOISE, number)
        noise = _noise(plain, _SPACING, dose, realisations, draws, fluence)
        empty = _denoised(denoiser, plain + noise)
        if not noises:
            noises.append(_noise_figure("uniform", plain + noise, empty, _SPACING))
        for contrast in contrasts:
            held = _denoised(denoiser, plain + noise + contrast * rod)
            transfers.append(_transfer_figure(contrast, dose, contrast * rod, held - empty))
            if progress:
                progress("bench", len(transfers), len(doses) * len(contrasts))
    body = phantom(rng(seed, Purpose.PHANTOM, 0), _BODY, kind="abdomen", lesions=0)
    draws = rng(seed, Purpose.PROTOCOL_NOISE, len(doses))
    seen = body.hu + _noise(body.hu, body.spacing, doses[0], realisations, draws)
    clean = _denoised(denoiser, seen)
    noises.append(_noise_figure("patient", seen, clean, body.spacing))
    return BenchFigures(tuple(transfers), tuple(noises), hu_bias(clean, body.hu), realisations)


def _transfer_figure(contrast: float, dose: float, rod: Image, changes: Image) -> TransferFigure:
    """From what the rod changes in f(x) in each realisation, (N, H, W), HU."""

    def transfer(kept: NDArray[np.bool_]) -> Transfer:
        return task_transfer(changes[kept].mean(0, dtype=np.float64), _MIDDLE, _RADIUS, _SPACING)

    errors = _errors(lambda kept: [transfer(kept).falls_to(level) for level in LEVELS], len(changes))
    image = task_transfer(rod, _MIDDLE, _RADIUS, _SPACING)
    whole = transfer(np.ones(len(changes), dtype=bool))
    return TransferFigure(contrast, dose, image, whole, dict(zip(LEVELS, errors, strict=True)))


def _noise_figure(place: str, images: Image, clean: Image, spacing: tuple[float, float]) -> NoiseFigure:
    before, after = (_region(part) for part in (images, clean))
    errors = _errors(lambda kept: _four(noise_figures(after[kept], spacing)), len(after))
    figures = noise_figures(before, spacing), noise_figures(after, spacing)
    return NoiseFigure(place, *figures, (errors[0], errors[1], errors[2], errors[3]))


def _errors(figures: Callable[[NDArray[np.bool_]], Sequence[float]], count: int) -> list[float]:
    """Standard errors by the jackknife; not a number where too few realisations are there.

    Source: B. Efron and C. Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981,
    https://doi.org/10.1214/aos/1176345462

    Arguments:
        figures: From which realisations are kept to some figures.
        count: How many realisations there are.
    """
    group = np.arange(count) % _GROUPS
    if count < 2 * _GROUPS:
        return [math.nan] * len(figures(np.ones(count, dtype=bool)))
    values = np.array([figures(group != left_out) for left_out in range(_GROUPS)])
    return [float(e) for e in np.sqrt((_GROUPS - 1) * values.var(0))]


def _cylinder() -> Image:
    """Uniform tissue in air: round, so that no direction of its noise is another's."""
    rows, columns = np.indices((_SIDE, _SIDE)) - (_SIDE - 1) / 2
    edge = np.clip((_CYLINDER - np.hypot(rows, columns) * _SPACING[0]) / _SPACING[0] + 0.5, 0, 1)
    return np.asarray(-1000 + (1000 + _TISSUE) * edge, dtype=np.float32)


def _fluence(plain: Image) -> float:
    """Photons at dose 1 that give the cylinder the noise of a routine body slice."""
    draws = rng(0, Purpose.PROTOCOL_NOISE, _CALIBRATION)
    noise = float(_region(_noise(plain, _SPACING, 1.0, 2, draws, REFERENCE_FLUENCE)).std())
    return REFERENCE_FLUENCE * (noise / _NOISE) ** 2


def _rod(middle: tuple[float, float]) -> Image:
    cells = (np.arange(_SIDE * _FINE) + 0.5) / _FINE - 0.5
    distance = np.hypot((cells[:, None] - middle[1]) * _SPACING[0], (cells - middle[0]) * _SPACING[1])
    soft = gaussian_filter((distance <= _RADIUS).astype(np.float64), _EDGE / _SPACING[0] * _FINE)
    return np.asarray(soft.reshape(_SIDE, _FINE, _SIDE, _FINE).mean((1, 3)), dtype=np.float32)


def _noise(
    hu: Image,
    spacing: tuple[float, float],
    dose: float,
    count: int,
    draws: np.random.Generator,
    fluence: float = REFERENCE_FLUENCE,
) -> Image:
    drawn = noise_realisations(
        hu, spacing, dose, count, draws, input_dose=math.inf, reference_fluence=fluence
    )
    return np.stack([one - hu for one in drawn])


def _denoised(denoiser: Denoiser, images: Image) -> Image:
    """f of images (N, H, W); where the network crops, the border is theirs."""
    denoised = images.copy()
    crop = denoiser.crop
    for number, image in enumerate(images):
        clean = np.asarray(denoiser.denoise(image[None, None]), dtype=np.float32)[0, 0]
        denoised[number, crop : crop + clean.shape[0], crop : crop + clean.shape[1]] = clean
    return denoised


def _region(images: Image) -> Image:
    """The middle of images."""
    top, left = ((side - _REGION) // 2 for side in images.shape[1:])
    return images[:, top : top + _REGION, left : left + _REGION]
