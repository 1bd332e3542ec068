"""One image seen through one layer: samples drawn, refined, put into maps and audited."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image, Progress
from ctinv.invariance.audit.evidence import Evidence
from ctinv.invariance.audit.summary import audit
from ctinv.invariance.data.simulation.noise import noise_like
from ctinv.invariance.data.tiling import pad_to
from ctinv.invariance.fitting.novelty import NoveltyTest
from ctinv.invariance.infra.memory import freed_blocks_kept
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.infra.records import read
from ctinv.invariance.networks.fit_record import Timings
from ctinv.invariance.networks.fitted import FittedLayer, versions
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import RHO, Refined, affordable, longest, noise_change, refine
from ctinv.invariance.reporting.explanation import Explanation
from ctinv.invariance.reporting.provenance import Provenance, Refinement
from ctinv.invariance.sampling.slices import Drawn, read_back, sample_slice
from scipy.ndimage import gaussian_filter

__all__ = ["Request", "analyse", "spread_map"]

_NOISES = 3
_REREAD = 1  # refined changes of each kind that are read back: their sizes hardly differ
_PLENTY = 64  # samples from which a spread is smooth enough as it is


@dataclass(frozen=True)
class Request:
    """What is asked about an image.

    Arguments:
        samples: Draws of the flow per tile, two or more; of 48 a spread is known to 10 %.
        seed: Decides everything random.
        keep: Whole sample images to keep.
        refine: Samples to refine; None for as many as take some 30 s on two cores, 0 for none.
        rho: Noise ratio to refine to.
        quantiles: Shares between 0 and 1 whose pixelwise quantiles are wanted.
    """

    samples: int = 48
    seed: int = 0
    keep: int = 5
    refine: int | None = None
    rho: float = RHO
    quantiles: tuple[float, ...] = ()


def spread_map(images: Image) -> tuple[Image, float]:
    """Pixelwise standard deviation of a few images, smoothed the more the fewer there are.

    The variance is smoothed by a Gaussian of ``sqrt(64 / K) - 1`` pixels: of three samples by 3.6,
    from 64 on not at all. One image has no spread.

    Arguments:
        images: (K, H, W), HU.

    Returns:
        The map (H, W) in HU, and the Gaussian's standard deviation in pixels.

    Example:
        >>> spread, width = spread_map(np.stack([np.full((8, 8), v, np.float32) for v in (-1, 1)]))
        >>> round(float(spread[0, 0]), 3), round(width, 2)
        (1.414, 4.66)
    """
    if len(images) < 2:
        return np.zeros(images.shape[1:], dtype=np.float32), 0.0
    return _smooth_root(images.astype(np.float64).var(0, ddof=1), len(images))


def _smooth_root(variance: npt.NDArray[np.float64], count: int) -> tuple[Image, float]:
    """The root of a variance (H, W) of so many images, smoothed, and the Gaussian's width in pixels."""
    width = max(0.0, math.sqrt(_PLENTY / count) - 1)
    if width:
        variance = gaussian_filter(variance, width, mode="nearest")
    return np.sqrt(np.maximum(variance, 0)).astype(np.float32), width


def analyse(
    fitted: FittedLayer,
    x: Image,
    request: Request,
    spacing: tuple[float, float] | None = None,
    source: str = "array",
    progress: Progress | None = None,
) -> Explanation:
    """Sample a layer's invariances at one slice, refine some of them, and audit the outcome.

    Arguments:
        fitted: The fitted bundle.
        x: The slice (H, W), HU.
        request: How many samples, and so on.
        spacing: Row and column spacing in mm, where known.
        source: The slice's file.
        progress: Called with (stage, done, total).
    """
    clock = [time.perf_counter()]
    patch = fitted.preset.vae.patch
    whole = pad_to(x, patch)
    observer = Observer(
        fitted.denoiser, fitted.layer, fitted.embedder, None if fitted.geometry.local else patch
    )
    noise = noise_like(whole, _NOISES, rng(request.seed, Purpose.NOISE), spacing)
    moves = noise_change(observer, whole, noise)
    count = _refined_count(observer, whole, request)
    keep = min(request.samples, max(request.keep, count, 2))
    drawn = sample_slice(
        fitted, whole, request.samples, request.seed, keep, progress, quantiles=request.quantiles
    )
    clock.append(time.perf_counter())
    hidden = shown = None
    if count:
        with freed_blocks_kept():
            hidden = _NoiseMap.of(observer, whole, noise, moves, count, request.rho, progress)
            shown = _refined_maps(observer, whole, drawn, moves, count, request.rho, progress)
    clock.append(time.perf_counter())
    audited = audit(
        Evidence(
            denoiser=fitted.denoiser,
            observer=observer,
            x=whole,
            reconstruction=drawn.reconstruction,
            flow=drawn.samples,
            refined=None if shown is None else shown.refined,
            rho=request.rho,
            std=drawn.std if shown is None else shown.std,
            std_flow=drawn.std,
            noise=noise,
            noise_moves=moves,
            scores=fitted.info.scores,
            why=_why(observer, request),
            seed=request.seed,
            reading=drawn.reading,
            reading_code=drawn.decoded,
            reread=_reread(fitted, whole, drawn.reading, request.rho, shown, hidden),
            noise_refined=None if hidden is None else hidden.refined,
            std_noise=None if hidden is None else hidden.std,
            spacing=spacing,
            novelty=_novelty_test(fitted),
        )
    )
    clock.append(time.perf_counter())
    meta = _provenance(fitted, request, shown, clock, spacing, source)
    images = _images(x.shape, request.keep, drawn, shown, hidden)
    denoised = np.asarray(fitted.denoiser.denoise(x[None, None]))[0, 0]
    return Explanation(x=x, denoised=denoised, **images, audit=audited, meta=meta)


def _images(
    shape: tuple[int, ...],
    keep: int,
    drawn: Drawn,
    shown: _RefinedMaps | None,
    hidden: _NoiseMap | None,
) -> dict[str, Any]:
    """The images of an explanation, cut to the slice's own size."""
    crop = (..., slice(shape[0]), slice(shape[1]))
    maps = drawn if shown is None else shown
    return {
        "reconstruction": drawn.reconstruction[crop],
        "samples": maps.samples[crop][:keep],
        "mean": maps.mean[crop],
        "std": maps.std[crop],
        "std_flow": None if shown is None else drawn.std[crop],
        "quantiles": None if drawn.quantiles is None else drawn.quantiles[crop],
        "reading": None if drawn.reading is None else drawn.reading[crop],
        "std_noise": None if hidden is None else hidden.std[crop],
    }


@dataclass(frozen=True, eq=False)
class _RefinedMaps:
    """Refined samples (K, H, W), their mean and map (H, W), HU, and the map's smoothing in pixels."""

    refined: Refined
    samples: Image
    mean: Image
    std: Image
    smoothing: float

    def about(self, rho: float) -> Refinement:
        return Refinement(len(self.samples), rho, self.refined.steps, round(self.smoothing, 2))


def _refined_maps(
    observer: Observer,
    x: Image,
    drawn: Drawn,
    moves: float,
    count: int,
    rho: float,
    progress: Progress | None,
) -> _RefinedMaps:
    """Move the first samples onto the layer's fibre, and map them."""
    changes = drawn.samples[:count] - drawn.reconstruction
    most = longest(observer, x, count)
    refined = refine(observer, x, changes, moves, rho=rho, most=most, progress=progress)
    samples = x + refined.at(rho)
    mean = samples.mean(0, dtype=np.float64).astype(np.float32)
    return _RefinedMaps(refined, samples, mean, *spread_map(samples))


@dataclass(frozen=True, eq=False)
class _NoiseMap:
    """Refined noise realisations, and their spread (H, W), HU."""

    refined: Refined
    std: Image

    @classmethod
    def of(
        cls,
        observer: Observer,
        x: Image,
        noise: Image,
        moves: float,
        count: int,
        rho: float,
        progress: Progress | None,
    ) -> _NoiseMap:
        """Of about a third as many as there are samples: noise is alike everywhere, anatomy is not."""
        some = noise[: max(1, min(len(noise), count // 3))]
        most = longest(observer, x, len(some))
        refined = refine(
            observer, x, some, moves, rho=rho, rhos=(), most=most, progress=progress, stage="noise"
        )
        # Noise is as likely as its negative: its mean is 0 and need not be taken from so few.
        square = np.square(refined.at(rho), dtype=np.float64).mean(0)
        return cls(refined, _smooth_root(square, len(some))[0])


def _reread(
    fitted: FittedLayer,
    x: Image,
    reading: Image | None,
    rho: float,
    shown: _RefinedMaps | None,
    hidden: _NoiseMap | None,
) -> tuple[Image, ...]:
    """What is read back of refined samples and of refined noise, less what is read of the image."""
    if reading is None or shown is None or hidden is None:
        return ()
    changes = (one.refined.at(rho)[:_REREAD] for one in (shown, hidden))
    return tuple(np.stack([read_back(fitted, x + d) - reading for d in some]) for some in changes)


def _novelty_test(fitted: FittedLayer) -> NoveltyTest | None:
    habit = fitted.info.habit
    return None if habit is None else read(NoveltyTest, habit, exact=True)


def _timings(fitted: FittedLayer, clock: list[float]) -> Timings:
    """Those of the fit, and of sampling, refinement and audit, between whose ends the clock was read."""
    sampling, refinement, auditing = (round(b - a, 3) for a, b in pairwise(clock))
    known = fitted.info.timings or Timings()
    return dataclasses.replace(known, sampling=sampling, refinement=refinement, audit=auditing)


def _provenance(
    fitted: FittedLayer,
    request: Request,
    shown: _RefinedMaps | None,
    clock: list[float],
    spacing: tuple[float, float] | None,
    source: str,
) -> Provenance:
    denoiser, layer = fitted.denoiser, fitted.denoiser.resolve(fitted.layer)
    return Provenance(
        model=denoiser.name,
        model_hash=denoiser.fingerprint,
        model_kind=denoiser.kind,
        provider=denoiser.device,
        layer=layer.name,
        op=layer.op,
        preset=fitted.preset.name,
        preset_fields=fitted.preset.as_dict(),
        intensity=str(denoiser.intensity),
        output=denoiser.output,
        notices=tuple(denoiser.notices),
        data=fitted.info.data,
        fit=dataclasses.replace(fitted.info, timings=None, data=None),
        versions=versions(),
        seed=request.seed,
        samples=request.samples,
        refinement=Refinement() if shown is None else shown.about(request.rho),
        quantiles=request.quantiles or None,
        spacing=spacing,
        source=source,
        timings=_timings(fitted, clock),
    )


def _refined_count(observer: Observer, x: Image, request: Request) -> int:
    if request.refine == 0 or not observer.differentiable:
        return 0
    count = affordable(observer, x) if request.refine is None else max(2, request.refine)
    return min(count, request.samples)


def _why(observer: Observer, request: Request) -> str:
    if request.refine == 0:
        return "it was not asked for"
    return "" if observer.differentiable else "the model has no gradients"
