"""One image seen through one layer: samples drawn, refined, put into maps and audited."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.invariance.audit.summary import Evidence, audit
from ctinv.invariance.data.simulation.noise import noise_like
from ctinv.invariance.data.tiling import pad_to
from ctinv.invariance.fitting.novelty import Habit
from ctinv.invariance.networks.fitted import FittedLayer
from ctinv.invariance.refinement.observer import Observer
from ctinv.invariance.refinement.refine import RHO, Refined, affordable, noise_change, refine
from ctinv.invariance.sampling.slices import sample_slice
from scipy.ndimage import gaussian_filter

__all__ = ["Analysis", "Request", "analyse", "spread_map"]

_NOISES = 3
_PLENTY = 64  # samples from which a spread is smooth enough as it is

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """What is asked about an image.

    Arguments:
        samples: Draws of the flow per tile, two or more.
        seed: Decides everything random.
        keep: Whole sample images to keep.
        refine: Samples to refine; None for as many as take some 30 s on two cores, 0 for none.
        rho: Noise ratio to refine to.
        quantiles: Shares between 0 and 1 whose pixelwise quantiles are wanted.
    """

    samples: int = 250
    seed: int = 0
    keep: int = 5
    refine: int | None = None
    rho: float = RHO
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found, all (H, W) in HU unless said otherwise.

    Arguments:
        reconstruction: ``D(E(x))``.
        samples: The kept samples, refined where there is refinement, (K, H, W).
        mean: Pixelwise mean of the samples that the map rests on.
        std: The map.
        std_flow: The flow's own map, where the map is another.
        audit: See :class:`ctinv.invariance.Explanation`.
        refinement: Samples refined, noise ratio, Lanczos steps, smoothing of the map in pixels.
        timings: Seconds by stage.
        quantiles: Of the flow's samples, (Q, H, W), where they were asked for.
    """

    reconstruction: Image
    samples: Image
    mean: Image
    std: Image
    std_flow: Image | None
    audit: dict[str, Any]
    refinement: dict[str, Any]
    timings: dict[str, float]
    quantiles: Image | None = None


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
    variance = images.astype(np.float64).var(0, ddof=1)
    width = max(0.0, math.sqrt(_PLENTY / len(images)) - 1)
    if width:
        variance = gaussian_filter(variance, width, mode="nearest")
    return np.sqrt(np.maximum(variance, 0)).astype(np.float32), width


def analyse(
    fitted: FittedLayer,
    x: Image,
    request: Request,
    spacing: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Sample a layer's invariances at one slice, refine some of them, and audit the outcome.

    Arguments:
        fitted: The fitted bundle.
        x: The slice (H, W), HU.
        request: How many samples, and so on.
        spacing: Row and column spacing in mm, where known.
        progress: Called with (stage, done, total).
    """
    clock = [time.perf_counter()]
    patch = fitted.preset.vae.patch
    whole = pad_to(x, patch)
    observer = Observer(
        fitted.denoiser,
        fitted.layer,
        fitted.embedder,
        None if fitted.geometry.local else patch,
    )
    noise = noise_like(whole, _NOISES, request.seed, spacing)
    moves = noise_change(observer, whole, noise)
    count = _refined_count(observer, whole, request)
    keep = min(request.samples, max(request.keep, count, 2))
    drawn = sample_slice(
        fitted, whole, request.samples, request.seed, keep, progress, quantiles=request.quantiles
    )
    clock.append(time.perf_counter())

    refined: Refined | None = None
    samples, mean, std, width = drawn.samples, drawn.mean, drawn.std, 0.0
    if count:
        changes = drawn.samples[:count] - drawn.reconstruction
        refined = refine(observer, whole, changes, moves, rho=request.rho, progress=progress)
        samples = whole + refined.at(request.rho)
        mean = samples.mean(0, dtype=np.float64).astype(np.float32)
        std, width = spread_map(samples)
    clock.append(time.perf_counter())

    height, width_px = x.shape
    crop = (..., slice(height), slice(width_px))
    evidence = Evidence(
        denoiser=fitted.denoiser,
        observer=observer,
        x=whole,
        reconstruction=drawn.reconstruction,
        flow=drawn.samples,
        refined=refined,
        rho=request.rho,
        std=std,
        std_flow=drawn.std,
        noise=noise,
        noise_moves=moves,
        scores=fitted.info.get("scores", {}),
        why=_why(observer, request),
        seed=request.seed,
        spacing=spacing,
        habit=Habit.from_dict(habit) if (habit := fitted.info.get("habit")) else None,
    )
    found = audit(evidence)
    clock.append(time.perf_counter())
    seconds = [round(b - a, 3) for a, b in pairwise(clock)]
    return Analysis(
        reconstruction=drawn.reconstruction[crop],
        samples=samples[crop][: request.keep],
        mean=mean[crop],
        std=std[crop],
        std_flow=drawn.std[crop] if refined else None,
        audit=found,
        refinement={
            "samples": count,
            "rho": request.rho,
            "steps": refined.steps,
            "smoothing": round(width, 2),
        }
        if refined
        else {},
        timings=dict(zip(("sampling", "refinement", "audit"), seconds, strict=True)),
        quantiles=None if drawn.quantiles is None else drawn.quantiles[crop],
    )


def _refined_count(observer: Observer, x: Image, request: Request) -> int:
    if request.refine == 0 or not observer.differentiable:
        return 0
    wanted = affordable(observer, x) if request.refine is None else max(2, request.refine)
    return min(wanted, request.samples)


def _why(observer: Observer, request: Request) -> str:
    if request.refine == 0:
        return "it was not asked for"
    return "" if observer.differentiable else "the model has no gradients"
