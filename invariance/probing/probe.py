"""``probe``: whether a layer can tell a lesion of known size and contrast."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import INPUT, OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.simulation.noise import noise_level
from ctinv.invariance.data.tiling import as_slice
from ctinv.invariance.networks.fitted import FittedLayer
from torch import Tensor

from .findings import LEVEL, Finding, Probe
from .hotelling import Detectability, Hotelling, cross_fit
from .lesions import Lesion, LesionGrid, lesion_signal, nearest_place, place_lesion
from .observation import Observation, Target, observation
from .provenance import ProbeProvenance, Timings

__all__ = ["REALISATIONS", "probe"]


REALISATIONS = 128
"""Noise realisations of a probe; half of them teach the observer, the other half judge it, and vice versa."""

SPACING = (0.8, 0.8)
"""Row and column spacing that is assumed where it is not known, mm."""


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
        lesion: The lesion; without a place it goes into the most homogeneous soft tissue, smaller where
            the slice has no room for it (a notice says so).
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
    if realisations < 16:
        raise CtinvError(f"{realisations} noise realisations tell nothing about noise; give 16 or more")
    if not level > 0:
        raise CtinvError(f"a d' of {level:g} is no level to reach; give a positive one, such as {LEVEL:g}")
    asked = [layer] if isinstance(layer, str) else list(layer)
    denoiser = denoiser.apart()
    names = list(dict.fromkeys(denoiser.resolve(name).name for name in asked))
    case = _case(image, lesion or Lesion(), grid, spacing)
    x, signal, lesions = case.target.x, case.target.signal, case.lesions
    started = time.perf_counter()
    place = observation(
        denoiser,
        list(dict.fromkeys([INPUT, *names, OUTPUT])),
        case.target,
        realisations=realisations,
        seed=seed,
        standards=_standards(explainers),
        progress=progress,
    )
    detected = _detect(place, case.signals, progress)
    denoised = _denoised(denoiser, x, signal)
    timings = Timings(observation=round(time.perf_counter() - started, 3))
    probes = []
    for name in names:
        findings = tuple(
            Finding(one, seen[INPUT], seen[name], seen[OUTPUT])
            for one, seen in zip(lesions, detected, strict=True)
        )
        recovery = None
        if explainers and name in explainers:
            from .recovery import recover

            recovery = recover(explainers[name], place, lesions[0], signal, samples, seed, progress)
        meta = dataclasses.replace(
            _provenance(denoiser, name, place, case),
            realisations=realisations,
            level=level,
            seed=seed,
            timings=timings,
        )
        shift = place.shifts[name]
        images = x, signal, denoised, place.place
        probes.append(Probe(*images, findings[0], shift, meta, case.grid, findings[1:], recovery))
    return probes[0] if isinstance(layer, str) else tuple(probes)


@dataclass(frozen=True, eq=False)
class _Case:
    """What is asked of a slice: the lesion, with its place, then those of the grid; each as an image, HU."""

    target: Target
    lesions: tuple[Lesion, ...]
    signals: tuple[Image, ...]
    spacing_known: bool
    source: str
    grid: LesionGrid | None = None
    notice: str | None = None


def _case(image: Any, lesion: Lesion, grid: LesionGrid | None, spacing: tuple[float, float] | None) -> _Case:
    """Find the lesion's place, and draw it there at every size and contrast.

    Raises:
        ImageError: Not a slice, or no place for the lesion.
        CtinvError: Too small a lesion.
    """
    x = as_slice(image)
    known = spacing or getattr(image, "spacing", None)
    pixel = known or SPACING
    sizes = (lesion.size, *(grid.sizes if grid else ()))
    lesion_signal(x.shape, Lesion(min(sizes), 1.0), (0, 0), pixel)  # refuses what is too small
    notice = None
    if lesion.at is None:
        at, largest, notice = nearest_place(x, max(sizes), pixel)
        lesion, grid = _at_most(lesion, grid, largest)
    else:
        at = place_lesion(x, Lesion(max(sizes), lesion.contrast, lesion.at), pixel)
        largest = max(sizes)
    lesions = (Lesion(lesion.size, lesion.contrast, at), *_on(grid, at))
    signals = tuple(lesion_signal(x.shape, one, at, pixel) for one in lesions)
    reach = math.ceil(largest / 2 / min(pixel))
    source = str(getattr(image, "name", None) or "array")
    target = Target(x, signals[0], at, reach, pixel)
    return _Case(target, lesions, signals, known is not None, source, grid, notice)


def _at_most(lesion: Lesion, grid: LesionGrid | None, largest: float) -> tuple[Lesion, LesionGrid | None]:
    """The lesion and the grid without what the slice has no room for."""
    lesion = dataclasses.replace(lesion, size=min(lesion.size, largest))
    if grid is None:
        return lesion, None
    fitting = tuple(size for size in grid.sizes if size <= largest)
    return lesion, LesionGrid(fitting or (largest,), grid.contrasts)


def _on(grid: LesionGrid | None, at: tuple[int, int]) -> list[Lesion]:
    if grid is None:
        return []
    return [Lesion(size, contrast, at) for contrast in grid.contrasts for size in grid.sizes]


def _standards(explainers: Mapping[str, FittedLayer] | None) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (e.embedder.mean, e.embedder.std) for name, e in (explainers or {}).items()}


def _detect(
    view: Observation, signals: Sequence[Image], progress: Progress | None
) -> list[dict[str, Detectability]]:
    """``d'`` of every layer for every lesion, each half of the noise judged by what the other taught."""
    absent = view.observe()
    observers: dict[str, list[Hotelling]] = {name: [] for name in view.layers}
    detected = []
    for number, signal in enumerate(signals):
        present = view.observe(signal)
        entry = {name: cross_fit(absent[name], present[name], observers[name]) for name in view.layers}
        detected.append(entry)
        if progress:
            progress("lesions", number + 1, len(signals))
    return detected


def _denoised(denoiser: Denoiser, x: Image, signal: Image) -> Image:
    both = np.stack([x, x + signal])
    clean = np.asarray(denoiser.denoise(both[:, None]), dtype=np.float32)[:, 0]
    crop = denoiser.crop
    both[:, crop : crop + clean.shape[1], crop : crop + clean.shape[2]] = clean
    return both


def _provenance(denoiser: Denoiser, layer: str, place: Observation, case: _Case) -> ProbeProvenance:
    resolved = denoiser.resolve(layer)
    part = "x".join(str(n) for n in place.x[place.crop].shape)
    x, lesion = case.target.x, np.abs(case.target.signal)
    return ProbeProvenance(
        model=denoiser.name,
        model_hash=denoiser.fingerprint,
        model_kind=denoiser.kind,
        provider=denoiser.device,
        layer=resolved.name,
        op=resolved.op,
        intensity=str(denoiser.intensity),
        output=denoiser.output,
        notices=(*denoiser.notices, *([case.notice] if case.notice else [])),
        shown=f"{'a crop' if place.cropped else 'the whole slice'}, {part} pixels",
        window=(place.window[2], place.window[2]),
        versions={name: importlib.metadata.version(name) for name in ("ctinv", "torch", "numpy")},
        source=case.source,
        spacing=case.target.spacing,
        spacing_known=case.spacing_known,
        noise=noise_level(x),
        tissue=float(np.mean(x[lesion > 0.5 * lesion.max()])),
    )
