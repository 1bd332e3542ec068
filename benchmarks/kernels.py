"""The zoo beside the best Gaussian blur, by kernel class, on held-out patients.

    python benchmarks/kernels.py FOLDER [--realisations 2] [--textures 10] [--json FILE]

FOLDER holds the CT slices that the zoo was trained on; the held-out patients are those of the model cards.
Each slice is seen at a quarter of its own dose. *Body*: noise of the smooth kernel, the slice as it was
acquired is the target. *Medium* and *sharp*: slice and target have noise of that kernel, at four times and
once the power that goes with the slice's own dose. *Acquired*: the slices with lung and bone kernels, which
no training has seen, as they are. The blur's width is chosen for each slice on the target itself: no
denoiser could know it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv import zoo
from ctinv.invariance.data import CTSlice, body_mask, find_series
from ctinv.invariance.data.ldct import DOSES
from ctinv.invariance.data.lowdose import exposure, kernel_of, low_dose, measured_fluence
from ctinv.invariance.data.pairs import region_of
from ctinv.invariance.data.simulation.dose import Kernel, dose_pair
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.zoo.registry import unlike_training
from ctinv.zoo.training.pairs import Pair, TrainingSet
from ctinv.zoo.training.scores import BANDS, score
from scipy import ndimage, optimize, stats

QUARTER = dict.fromkeys(DOSES, 0.25)
CLASSES = ("body", "medium", "sharp", "acquired")
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Row:
    """One network in one kernel class.

    Arguments:
        kernel: The class.
        network: Its name.
        slices: How many.
        patients: Of how many patients.
        rmse_low: RMSE of the low dose in the body, HU.
        network_lower: By which share the network lowers it, all pixels together.
        blur_lower: By which share the blur does.
        widths: Least and largest width of the blurs, pixels.
        gain: By how much more of the RMSE the network takes away than the blur, mean over patients.
        gain_low: Lower end of its 95 % interval, Student's t over patients.
        gain_high: Upper end.
        told: Slices of which the zoo says that the network is not for them.
    """

    kernel: str
    network: str
    slices: int
    patients: int
    rmse_low: float
    network_lower: float
    blur_lower: float
    widths: tuple[float, float]
    gain: float
    gain_low: float
    gain_high: float
    told: int


def held_out(folder: Path) -> tuple[list[tuple[CTSlice, str]], list[tuple[CTSlice, str]]]:
    """Slices with their patients: body kernels of held-out patients, and all lung and bone kernels."""
    body, acquired = [], []
    for series in find_series(folder).series:
        for one in series.load().slices:
            if one.spacing is not None:
                (body if kernel_of(one) == "smooth" else acquired).append((one, series.patient))
    patients = sorted({patient for _, patient in body})
    held = set(patients[3::4])  # as TrainingSet.split divides
    return [pair for pair in body if pair[1] in held], acquired


def pairs_of(
    kernel: str, slices: Sequence[tuple[CTSlice, str]], realisations: int, seed: int
) -> Iterator[Pair]:
    """Low dose and target of one class."""
    for number, (one, patient) in enumerate(slices):
        assert one.spacing is not None
        if kernel in ("body", "acquired"):
            low, full = low_dose(one, one.spacing, patient, seed=seed, count=realisations, doses=QUARTER)
            yield Pair(low, full, patient)
            continue
        hu = one.hu.clip(-1024, 3071).astype(np.float32)
        draws = rng(seed, Purpose.DOSE, number)
        fluence = measured_fluence(hu, one.spacing, "smooth", draws) or exposure(
            hu, one.spacing, region_of(hu)
        )
        chosen: Kernel = "sharp" if kernel == "sharp" else "medium"
        for _ in range(realisations):  # each with a target of its own
            low, full = dose_pair(hu, one.spacing, 0.25, draws, kernel=chosen, reference_fluence=fluence)
            yield Pair(low[None], full, patient)


def best_blur(low: np.ndarray, full: np.ndarray, body: np.ndarray) -> tuple[float, float]:
    """Width of the Gaussian, in pixels, with the least squared error in the body, and that error."""

    def error(width: float) -> float:
        return float(np.square(ndimage.gaussian_filter(low, width) - full)[body].sum(dtype=float))

    found = optimize.minimize_scalar(error, bounds=(0.1, 4.0), method="bounded", options={"xatol": 0.01})
    return float(found.x), float(found.fun)


def rows(kernel: str, pairs: Sequence[Pair]) -> list[Row]:
    """Both networks beside the blur."""
    denoisers = {name: zoo.load(name) for name in zoo.names()}
    errors: dict[str, dict[str, float]] = {key: {} for key in ("low", "blur", *denoisers)}
    widths, pixels = [], 0
    told = dict.fromkeys(denoisers, 0)
    for pair in pairs:
        body = body_mask(pair.full)
        for low in pair.low:
            pixels += int(body.sum())
            width, blurred = best_blur(low, pair.full, body)
            widths.append(width)
            found = {"low": float(np.square(low - pair.full)[body].sum(dtype=float)), "blur": blurred}
            for name, denoiser in denoisers.items():
                clean = np.asarray(denoiser.denoise(low[None, None]))[0, 0]
                found[name] = float(np.square(clean - pair.full)[body].sum(dtype=float))
                told[name] += bool(unlike_training(name, low))
            for key, value in found.items():
                errors[key][pair.patient] = errors[key].get(pair.patient, 0.0) + value
    patients = list(errors["low"])
    total = {key: sum(values.values()) for key, values in errors.items()}
    found_rows = []
    for name in denoisers:
        gains = [
            math.sqrt(errors["blur"][p] / errors["low"][p]) - math.sqrt(errors[name][p] / errors["low"][p])
            for p in patients
        ]
        gain, half = float(np.mean(gains)), math.nan
        if len(gains) > 1:
            quantile = stats.t.ppf(0.5 + _CONFIDENCE / 2, len(gains) - 1)
            half = float(quantile * np.std(gains, ddof=1) / math.sqrt(len(gains)))
        row = Row(
            kernel,
            name,
            sum(len(pair.low) for pair in pairs),
            len(patients),
            math.sqrt(total["low"] / pixels),
            1 - math.sqrt(total[name] / total["low"]),
            1 - math.sqrt(total["blur"] / total["low"]),
            (min(widths), max(widths)),
            gain,
            gain - half,
            gain + half,
            told[name],
        )
        found_rows.append(row)
    return found_rows


def texture(slices: Sequence[tuple[CTSlice, str]], count: int, seed: int) -> dict[str, dict[str, Any]]:
    """Noise power over that of full dose, by band, mean over noise realisations of the body class.

    With it goes how much nearer to 1 Yang's is than Chen's, with the interval of a jackknife over the
    realisations.
    """
    power: dict[str, dict[str, list[float]]] = {name: {band: [] for band in BANDS} for name in zoo.names()}
    for number in range(seed, seed + count):
        pairs = TrainingSet(list(pairs_of("body", slices, 1, number)))
        for name, bands in power.items():
            for band, value in score(zoo.load(name).denoise, pairs).power.items():
                bands[band].append(value)
    nearer = {band: _nearer(np.array([power["chen"][band], power["yang"][band]])) for band in BANDS}
    means = {name: {band: float(np.mean(v)) for band, v in bands.items()} for name, bands in power.items()}
    return {**means, "chen's distance from 1 over yang's": nearer}


def _nearer(powers: np.ndarray) -> dict[str, float]:
    """Of powers (2, realisations): the distance of the first mean from 1 over that of the second."""
    count = powers.shape[1]
    total = powers.sum(1, keepdims=True)

    def ratio(means: np.ndarray) -> np.ndarray:
        return np.abs(1 - means[0]) / np.abs(1 - means[1])

    value = float(ratio(total / count)[0])
    if count < 2:
        return {"value": value}
    left_out = ratio((total - powers) / (count - 1))
    error = math.sqrt((count - 1) * float(left_out.var()))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, count - 1)) * error
    return {"value": value, "low": value - half, "high": value + half}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the CT slices of the model cards")
    parser.add_argument("--realisations", type=int, default=2, help="of the noise, for each slice")
    parser.add_argument(
        "--textures", type=int, default=10, help="noise realisations that texture is read from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    body, acquired = held_out(args.folder)
    figures: list[dict[str, Any]] = []
    heads = ("kernels", "network", "slices (patients)", "RMSE, HU", "network", "best blur", "more", "told")
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|---|")
    for kernel in CLASSES:
        slices = acquired if kernel == "acquired" else body
        pairs = list(pairs_of(kernel, slices, args.realisations, args.seed))
        for row in rows(kernel, pairs):
            figures.append(asdict(row))
            gain = f"{100 * row.gain:.1f} points [{100 * row.gain_low:.1f}, {100 * row.gain_high:.1f}]"
            print(
                f"| {kernel} | {row.network} | {row.slices} ({row.patients}) | {row.rmse_low:.1f} | "
                f"{100 * row.network_lower:.1f} % | {100 * row.blur_lower:.1f} % ({row.widths[0]:.2f} to "
                f"{row.widths[1]:.2f} px) | {gain} | {row.told} of {row.slices} |",
                flush=True,
            )
    bands = texture(body, args.textures, args.seed)
    print(json.dumps(bands, indent=1))
    if args.json:
        args.json.write_text(
            json.dumps({"rows": figures, "texture": bands}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
