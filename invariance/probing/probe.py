"""``probe``: whether a layer can tell a lesion of known size and contrast."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from ctinv.adapters.base import INPUT, OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.data.simulation.noise import noise_level
from ctinv.invariance.networks.fitted import FittedLayer
from torch import Tensor

from .findings import LEVEL, Finding, Probe
from .hotelling import Detectability, Hotelling, cross_fit
from .lesions import Lesion, LesionGrid, lesion_signal, place_lesion
from .observation import Scene, scene

__all__ = ["REALISATIONS", "probe"]


REALISATIONS = 128
"""Noise realisations of a probe; half of them teach the observer, the other half judge it, and vice versa."""

SPACING = (0.8, 0.8)
"""Row and column spacing that is assumed where it is not known, mm."""

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@overload
def probe(
    denoiser: Denoiser,
    layer: str,
    image: Any,
    lesion: Lesion | None = ...,
    *,
    grid: LesionGrid | None = ...,
    level: float = ...,
    realisations: int = ...,
    seed: int = ...,
    spacing: tuple[float, float] | None = ...,
    explainers: Mapping[str, FittedLayer] | None = ...,
    samples: int = ...,
    progress: Progress | None = ...,
) -> Probe: ...


@overload
def probe(
    denoiser: Denoiser,
    layer: Sequence[str],
    image: Any,
    lesion: Lesion | None = ...,
    *,
    grid: LesionGrid | None = ...,
    level: float = ...,
    realisations: int = ...,
    seed: int = ...,
    spacing: tuple[float, float] | None = ...,
    explainers: Mapping[str, FittedLayer] | None = ...,
    samples: int = ...,
    progress: Progress | None = ...,
) -> tuple[Probe, ...]: ...


def probe(
    denoiser: Denoiser,
    layer: str | Sequence[str],
    image: Any,
    lesion: Lesion | None = None,
    *,
    grid: LesionGrid | None = None,
    level: float = LEVEL,
    realisations: int = REALISATIONS,
    seed: int = 0,
    spacing: tuple[float, float] | None = None,
    explainers: Mapping[str, FittedLayer] | None = None,
    samples: int = 50,
    progress: Progress | None = None,
) -> Probe | tuple[Probe, ...]:
    """Put a lesion into a slice and find out whether layers of a denoiser can tell.

    The lesion is known exactly, and so is the slice; only the noise differs. The best linear
    observer of each layer learns on one half of the noise realisations and is judged on the other,
    then the halves change places: no optimism. The same observer looks at ``x`` and at ``f(x)``.

    Arguments:
        denoiser: The denoiser; no gradients are needed.
        layer: A layer's name, or several, which then share the noise.
        image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
        lesion: The lesion; without a place it goes into the most homogeneous soft tissue.
        grid: Sizes and contrasts of a detectability map, at the same place.
        level: ``d'`` from which on a lesion counts as visible.
        realisations: Noise realisations, 16 or more.
        seed: Draws the noise and the samples.
        spacing: Row and column spacing in mm; the image's own, or 0.8, where None.
        explainers: Fitted bundles by layer; where there is one, samples of ``p(x | Phi(x))`` are drawn
            for the image with the lesion.
        samples: Samples from each.
        progress: Called with (stage, done, total).

    Returns:
        What was found; for several layers a tuple.

    Raises:
        ImageError: Not a slice, no noise in it, or no place for the lesion.
        LayerError: No such layer.
        CtinvError: Too small a lesion, too few realisations.
    """
    x, own = _as_slice(image)
    given = spacing or own
    steps = given or SPACING
    if realisations < 16:
        raise CtinvError(f"{realisations} noise realisations tell nothing about noise; give 16 or more")
    if not level > 0:
        raise CtinvError(f"a d' of {level:g} is no level to reach; give a positive one, such as {LEVEL:g}")
    asked = [layer] if isinstance(layer, str) else list(layer)
    names = list(dict.fromkeys(denoiser.resolve(name).name for name in asked))
    wanted = lesion or Lesion()
    sizes = (wanted.size, *(grid.sizes if grid else ()))
    largest = Lesion(max(sizes), wanted.contrast, wanted.at)
    lesion_signal(x.shape, Lesion(min(sizes), 1.0), (0, 0), steps)  # refuses what is too small
    at = place_lesion(x, largest, steps)
    placed = Lesion(wanted.size, wanted.contrast, at)
    every = [placed, *_on(grid, at)]
    signals = [lesion_signal(x.shape, one, at, steps) for one in every]

    started = time.perf_counter()
    view = scene(
        denoiser,
        list(dict.fromkeys([INPUT, *names, OUTPUT])),
        x,
        signals[0],
        at,
        math.ceil(max(sizes) / 2 / min(steps)),
        realisations=realisations,
        seed=seed,
        spacing=steps,
        standards=_standards(explainers),
        progress=progress,
    )
    found = _detect(view, signals, progress)
    denoised = _denoised(denoiser, x, signals[0])
    observed = time.perf_counter()
    probes = []
    for name in names:
        findings = [
            Finding(one, seen[INPUT], seen[name], seen[OUTPUT])
            for one, seen in zip(every, found, strict=True)
        ]
        recovery = None
        if explainers and name in explainers:
            from .recovery import recover

            recovery = recover(explainers[name], view, placed, signals[0], samples, seed, progress)
        meta = {
            **_meta(denoiser, name, view),
            "source": str(getattr(image, "source", None) or "array"),
            "spacing": steps,
            "spacing_known": given is not None,
            "noise": noise_level(x),
            "tissue": float(np.mean(x[np.abs(signals[0]) > 0.5 * np.abs(signals[0]).max()])),
            "realisations": realisations,
            "level": level,
            "seed": seed,
            "timings": {"observation": round(observed - started, 3)},
        }
        probes.append(
            Probe(
                x,
                signals[0],
                denoised,
                view.place,
                findings[0],
                view.shifts[name],
                grid,
                tuple(findings[1:]),
                recovery,
                meta,
            )
        )
    return probes[0] if isinstance(layer, str) else tuple(probes)


def _as_slice(image: Any) -> tuple[Image, tuple[float, float] | None]:
    x = np.ascontiguousarray(np.asarray(getattr(image, "hu", image), dtype=np.float32))
    if x.ndim != 2 or min(x.shape) < 8:
        raise ImageError(f"the image has shape {x.shape}; one slice (H, W) of 8 pixels or more is needed")
    if not np.isfinite(x).all():
        raise ImageError("the image holds values that are not finite; replace them, for example by -1024 HU")
    return x, getattr(image, "spacing", None)


def _on(grid: LesionGrid | None, at: tuple[int, int]) -> list[Lesion]:
    if grid is None:
        return []
    return [Lesion(size, contrast, at) for contrast in grid.contrasts for size in grid.sizes]


def _standards(explainers: Mapping[str, FittedLayer] | None) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (e.embedder.mean, e.embedder.std) for name, e in (explainers or {}).items()}


def _detect(
    view: Scene, signals: Sequence[Image], progress: Progress | None
) -> list[dict[str, Detectability]]:
    """``d'`` of every layer for every lesion, each half of the noise judged by what the other taught."""
    absent = view.observe()
    observers: dict[str, list[Hotelling]] = {name: [] for name in view.layers}
    found = []
    for number, signal in enumerate(signals):
        present = view.observe(signal)
        entry = {name: cross_fit(absent[name], present[name], observers[name]) for name in view.layers}
        found.append(entry)
        if progress:
            progress("lesions", number + 1, len(signals))
    return found


def _denoised(denoiser: Denoiser, x: Image, signal: Image) -> Image:
    both = np.stack([x, x + signal])
    clean = np.asarray(denoiser.denoise(both[:, None]), dtype=np.float32)[:, 0]
    crop = denoiser.crop
    both[:, crop : crop + clean.shape[1], crop : crop + clean.shape[2]] = clean
    return both


def _meta(denoiser: Denoiser, layer: str, view: Scene) -> dict[str, Any]:
    resolved = denoiser.resolve(layer)
    part = "x".join(str(n) for n in view.x[view.crop].shape)
    return {
        "model": denoiser.name,
        "model_hash": denoiser.fingerprint,
        "model_kind": denoiser.kind,
        "provider": denoiser.device,
        "layer": resolved.name,
        "op": resolved.op,
        "intensity": str(denoiser.intensity),
        "output": denoiser.output,
        "notices": list(denoiser.notices),
        "shown": f"{'a crop' if view.cropped else 'the whole slice'}, {part} pixels",
        "window": [view.window[2], view.window[2]],
        "versions": {name: importlib.metadata.version(name) for name in ("ctinv", "torch", "numpy")},
    }
