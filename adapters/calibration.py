"""Find out a denoiser's units: it removes noise, and only noise, in its own units alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._types import Image, Progress
from .errors import ImageError, IntensityError, ModelError, UnsupportedModelError
from .intensity import Intensity, parse_intensity

if TYPE_CHECKING:
    from ._types import Output

__all__ = ["Calibration", "Trial", "calibrate", "choose"]

Run = Callable[[Image, Intensity, Sequence["Output"]], Sequence[Image]]

# HU: fat, organs and contrast medium, where a denoiser must be right.
_TISSUE = (-160.0, 240.0)
# HU: what 12 bits hold; anything beyond is no tissue.
_RANGE = (-1024.0, 3071.0)
# Pixels: a patch that networks of any receptive field take.
_SIDE = 128
# Pixels in all: four patches, some seconds for all conventions on a CPU.
_PIXELS = 4 * _SIDE**2
# Pixels: a Gaussian that noise does not pass but an offset does.
_SCALE_OF_BIAS = 3.0
# HU: below, bias is within what good denoisers do; above, no more is learned.
_BIAS_COUNTS = (4.0, 15.0)
# Score, no unit: above that of any trial that denoises, whose logarithms stay below ten.
_HOPELESS = 20.0
# Score: 5 % in error is within what another noise seed changes.
_MIN_MARGIN = 0.05
# Score: 20 % in error; closer trials are named beside the one chosen.
_TIED = 0.2
# Share of the noise's energy: less is no denoising.
_MIN_REMOVED = 0.05
# HU: more shifts soft tissue visibly, and no denoiser is trained to do that.
_MAX_TISSUE_BIAS = 15.0
# HU, root mean square: less is of no consequence, the two conventions are one.
_SAME = 1.0
# HU, in soft tissue: less cannot be seen in a soft-tissue window.
_AGREE = 5.0
# HU: a larger bias outside soft tissue means that a part of the range is clipped.
_WHOLE = 100.0
# HU: noise of the second try, for denoisers that leave weak noise alone.
_STRONG = 100.0
# Share of strong noise: a denoiser for it leaves less.
_MAX_LEFT = 0.6
# Score: a factor of 1.6 in error, by which a convention for a part of the range may win.
_DOUBT = 0.5
# Score: a factor of 20 in error; a larger margin says no more.
_CLEAR = 3.0


@dataclass(frozen=True)
class Trial:
    """How a model behaves under one convention, on CT images to which known noise was added.

    Arguments:
        intensity: The convention tried.
        output: What the network was taken to return.
        tissue: Root mean square error in soft tissue, HU.
        tissue_bias: Root mean square of its low-frequency part that noise does not explain, HU.
        bias: 90th percentile of the low-frequency error over the whole image, HU.
        removed: Share of the noise's energy that is gone in soft tissue; negative where it grew.
        score: Lower is better, 20 and more for no denoiser at all; see :func:`calibrate`.
    """

    intensity: Intensity
    output: Output
    tissue: float
    tissue_bias: float
    bias: float
    removed: float
    score: float


@dataclass(frozen=True)
class Calibration:
    """The units under which a model works as a denoiser.

    Arguments:
        intensity: The convention chosen.
        output: Whether the network returns the image or the noise.
        margin: How much worse the next convention is that would change the result: the natural
            logarithm of the ratio of scores (0.69 is a factor of two), 3 at most.
        table: All trials, the best first.
        ties: Trials that do as well and give the same soft tissue, but not the same elsewhere.
        noise: Standard deviation of the noise, HU, with which the choice was made.
    """

    intensity: Intensity
    output: Output
    margin: float
    table: tuple[Trial, ...]
    ties: tuple[Trial, ...] = ()
    noise: float = 30.0

    def told(self) -> str:
        """The choice as a sentence, with what would do as well and how rough it is."""
        ties = ", ".join(str(trial.intensity) for trial in self.ties)
        as_well = f"; {ties} would do as well: soft tissue is the same to within 5 HU, other tissue is not"
        bias = next(trial.tissue_bias for trial in self.table if trial.intensity == self.intensity)
        rough = (
            f"; a rough choice: the model denoises only with noise of {self.noise:.0f} HU, and biases "
            f"soft tissue by {bias:.0f} HU"
        )
        return (
            f"units found by calibration: {self.intensity}, output {self.output}, margin {self.margin:.2f}"
            + (as_well if ties else "")
            + (rough if self.noise > 30.0 else "")
        )


def calibrate(
    run: Run,
    images: Image,
    *,
    candidates: Sequence[str],
    outputs: Sequence[Output],
    noise: float = 30.0,
    size: tuple[int | None, int | None] = (None, None),
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Try conventions and choose.

    A denoiser is near the identity, and removes noise, only in its own units. Nearness alone would
    mislead: far outside the range it was trained for, a network often changes next to nothing. So
    the images are smoothed a little, and noise of known strength is added and, in a second run,
    subtracted. The mean of both results tells what the network does to the image, half their
    difference what it leaves of the noise. A trial's score is::

        log(tissue) + 0.3 log(tissue_bias) + log(bias) - 0.25 log(removed) - 0.1 log(HU per unit)

    with ``bias`` kept between 4 and 15 HU: a model that was trained on a window is wrong outside
    it even in its own units, and how wrong tells nothing more. The last term speaks against large
    values: far above its own values a network with ReLUs no longer feels its biases, grows linear in
    scale, and works almost as well at any of them; below, the biases soon spoil everything. Trials
    that bias tissue by more than 15 HU, or remove next to no noise, are out.

    Arguments:
        run: From noisy images (N, 1, H, W) in HU and a convention to one denoised array, HU,
            centred and possibly smaller, for each entry of ``outputs``.
        images: CT images (N, 1, H, W), HU.
        candidates: Conventions, the most common first.
        outputs: What the network may return.
        noise: Standard deviation of the added noise, HU.
        size: Height and width of patches, for models that prescribe them; else 128 pixels.
        seed: Seed of the noise.
        progress: Told stage, done and total.

    Raises:
        ImageError: No soft tissue in the images.
        IntensityError: No convention makes a denoiser of the model, or several do as well.
    """
    clean = _patches(images, size)
    trials = _trials(run, clean, noise, seed, candidates, outputs, progress)
    if trials and min(trial.score for trial, _ in trials) >= _HOPELESS and noise < _STRONG:
        strong = _trials(run, clean, _STRONG, seed, candidates, outputs, progress)
        if min(trial.score for trial, _ in strong) < _HOPELESS:
            return dataclasses.replace(choose(strong), noise=_STRONG)
    return dataclasses.replace(choose(trials), noise=noise)


def _trials(
    run: Run,
    clean: Image,
    noise: float,
    seed: int,
    candidates: Sequence[str],
    outputs: Sequence[Output],
    progress: Progress | None,
) -> list[tuple[Trial, Image]]:
    """Every convention with every kind of output."""
    added = noise * _noise(clean.shape, seed)
    trials: list[tuple[Trial, Image]] = []
    for done, spec in enumerate(candidates):
        if progress:
            progress("calibrate", done, len(candidates))
        intensity = parse_intensity(spec)
        try:
            both = run(np.concatenate((clean + added, clean - added)), intensity, outputs)
        except UnsupportedModelError:
            raise
        except ModelError:
            continue
        for output, denoised in zip(outputs, both, strict=True):
            trials.append(_judged(clean, added, denoised, intensity, output, noise))
    if progress:
        progress("calibrate", len(candidates), len(candidates))
    return trials


def choose(trials: Sequence[tuple[Trial, Image]]) -> Calibration:
    """The best trial, if it is good and stands out.

    Arguments:
        trials: The most common convention first, each with the denoised images, HU, by which
            trials of the same effect are told.

    Raises:
        IntensityError: No trial denoises; or the best differ hardly in score, but by more than 5 HU in
            soft tissue, or in what the network is taken to return, or spoil what is no soft tissue.
    """
    ranked = sorted(trials, key=lambda pair: pair[0].score)
    table = tuple(trial for trial, _ in ranked)
    mend = (
        "give intensity= and output= (on the command line --intensity and --output) as the model was "
        "trained: unit:LO:HI where LO..HI HU became 0..1, standard:MEAN:STD, offset:K or hu; "
        "image or residual"
    )
    if not ranked or table[0].score >= _HOPELESS:
        facts = f" (best: {_told(table[0])})" if table else ""
        raise IntensityError(f"no known convention makes a denoiser of this model{facts}; {mend}")
    _, image = ranked[0]
    # Trials of the same effect are one; the most common convention stands for them.
    best = next(
        trial
        for trial, other in trials
        if trial.score < table[0].score + _MIN_MARGIN and not _differs(image, other)
    )
    doubts = [t for t in table[1:] if t.score < table[0].score + _DOUBT and 4 * t.bias < table[0].bias]
    if table[0].bias > _WHOLE and doubts:  # good in a part of the range, where another is in all of it
        raise IntensityError(
            f"the model's units cannot be told: {_told(table[0])}, yet {_told(doubts[0])}; give more slices, "
            f"or {mend}"
        )
    rivals = [(trial, other) for trial, other in ranked[1:] if _differs(image, other)]
    margin = min((rivals[0][0].score if rivals else _HOPELESS) - table[0].score, _CLEAR)

    def alike(trial: Trial, other: Image) -> bool:
        whole = max(trial.bias, table[0].bias) < _WHOLE
        return trial.output == best.output and whole and _apart(image, other) <= _AGREE

    for trial, other in rivals:
        if trial.score < table[0].score + _MIN_MARGIN and not alike(trial, other):
            raise IntensityError(
                f"the model's units cannot be told: {_told(best)}, hardly better than {_told(trial)}; {mend}"
            )
    # Nothing that matters here tells these apart: the most common is taken, and the others are told.
    tied = [best, *(t for t, other in rivals if t.score < table[0].score + _TIED and alike(t, other))]
    chosen = next(trial for trial, _ in trials if trial in tied)
    ties = tuple(trial for trial in tied if trial != chosen)
    return Calibration(chosen.intensity, chosen.output, margin, table, ties)


def _told(trial: Trial) -> str:
    return (
        f"{trial.intensity} with output {trial.output}: {trial.tissue:.0f} HU error in tissue, "
        f"{trial.bias:.0f} HU bias, {100 * trial.removed:.0f} % of the noise removed"
    )


def _differs(a: Image, b: Image) -> bool:
    gap = np.abs(a - b)
    return not float(np.sqrt(np.mean(np.square(gap, dtype=np.float64)))) < _SAME


def _apart(a: Image, b: Image) -> float:
    """Root mean square, HU, of what two results differ by in soft tissue, noise aside."""
    change = _blurred(a.astype(np.float64) - b)
    inside = _tissue(a) & _tissue(b)
    return math.sqrt(float(np.square(change[inside]).mean())) if inside.any() else math.inf


def _judged(
    clean: Image, added: Image, denoised: Image, intensity: Intensity, output: Output, noise_hu: float
) -> tuple[Trial, Image]:
    crop = (clean.shape[-1] - denoised.shape[-1]) // 2
    inner = (..., slice(crop, clean.shape[-2] - crop), slice(crop, clean.shape[-1] - crop))
    target, noise = clean[inner].astype(np.float64), added[inner].astype(np.float64)
    denoised = np.clip(np.nan_to_num(denoised, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)
    plus, minus = denoised[: len(target)].astype(np.float64), denoised[len(target) :].astype(np.float64)
    change = (plus + minus) / 2 - target
    left = (plus - minus) / 2
    tissue = _tissue(target)
    bias = _blurred(change)
    squares = (np.square(plus - target) + np.square(minus - target)) / 2
    error = math.sqrt(float(squares[tissue].mean()))
    removed = 1.0 - float(np.square(left[tissue]).mean() / np.square(noise[tissue]).mean())
    spread = float(np.quantile(np.abs(bias), 0.9))
    low = math.sqrt(float(np.square(bias[tissue]).mean()))
    score = _HOPELESS + math.log(max(error, 1.0))
    strength = max(1.0, noise_hu / 30.0)
    fit = strength == 1.0 or error < _MAX_LEFT * noise_hu
    if fit and removed > _MIN_REMOVED and low < _MAX_TISSUE_BIAS * strength:
        score = math.log(error) + 0.3 * math.log(max(low, 0.7)) - 0.25 * math.log(removed)
        score -= 0.1 * math.log(intensity.scale)
        score += math.log(min(max(spread, _BIAS_COUNTS[0] * strength), _BIAS_COUNTS[1] * strength))
    return Trial(intensity, output, error, low, spread, removed, score), denoised


def _blurred(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from scipy.ndimage import gaussian_filter

    blurred: npt.NDArray[Any] = gaussian_filter(images, (0, 0, _SCALE_OF_BIAS, _SCALE_OF_BIAS))
    return blurred


def _tissue(images: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Pixels well inside soft tissue; those of tissue at all where that leaves too few."""
    inside = (images > _TISSUE[0]) & (images < _TISSUE[1])
    deep: npt.NDArray[np.bool_] = _blurred(inside.astype(np.float64)) > 0.99
    return deep if deep.sum() >= 400 else inside


def _noise(shape: tuple[int, ...], seed: int) -> Image:
    """Noise of unit variance, a little correlated as in reconstructed images."""
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng(seed).standard_normal(shape)
    coloured = gaussian_filter(white, (0, 0, 0.7, 0.7), mode="wrap")
    return (coloured / coloured.std()).astype(np.float32)


def _patches(images: Image, size: tuple[int | None, int | None]) -> Image:
    """Smoothed patches that hold soft tissue beside something else."""
    from scipy.ndimage import gaussian_filter

    images = np.clip(images, *_RANGE)
    height, width = images.shape[-2:]
    side = (min(size[0] or _SIDE, height), min(size[1] or _SIDE, width))
    limit = max(1, _PIXELS // (side[0] * side[1]))
    graded: list[tuple[int, float, int, Image]] = []
    for image in images:
        places = []
        for top in _starts(height, side[0]):
            for left in _starts(width, side[1]):
                patch = image[None, :, top : top + side[0], left : left + side[1]]
                share = float(((patch > _TISSUE[0]) & (patch < _TISSUE[1])).mean())
                places.append((min(share, 0.6) + min(1.0 - share, 0.2), share, patch))
        places.sort(key=lambda place: -place[0])
        # The best patch of every image comes before the second of any.
        graded += [(rank, -grade, len(graded), patch) for rank, (grade, _, patch) in enumerate(places)]
    chosen = np.concatenate([patch for *_, patch in sorted(graded, key=lambda g: g[:3])[:limit]])
    inside = (chosen > _TISSUE[0]) & (chosen < _TISSUE[1])
    if inside.sum() < 400:
        raise ImageError(
            "calibration needs CT images in HU with soft tissue in them "
            f"({_TISSUE[0]:.0f} to {_TISSUE[1]:.0f} HU); these have {int(inside.sum())} such pixels"
        )
    return np.asarray(gaussian_filter(chosen, (0, 0, 0.8, 0.8)), dtype=np.float32)


def _starts(length: int, side: int) -> list[int]:
    return sorted({*range(0, length - side + 1, max(side // 2, 1)), length - side})
