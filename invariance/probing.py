"""``probe``: whether a layer can tell a lesion of known size and contrast."""

from __future__ import annotations

import importlib.metadata
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from ctinv.adapters.base import INPUT, OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError, ImageError
from torch import Tensor

from .hotelling import Detectability, Hotelling, cross_fit
from .lesions import Lesion, LesionGrid, lesion_signal, place_lesion
from .noise import noise_level
from .scene import Scene, Shift, scene

if TYPE_CHECKING:
    from .explainer import Explainer
    from .recovery import Recovery

__all__ = ["LEVEL", "REALISATIONS", "Finding", "Probe", "probe"]

LEVEL = 3.0
"""Detectability from which on a lesion counts as visible: 98 % right decisions between two images."""

REALISATIONS = 128
"""Noise realisations of a probe; half of them teach the observer, the other half judge it, and vice versa."""

SPACING = (0.8, 0.8)
"""Row and column spacing that is assumed where it is not known, mm."""

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """How well one lesion is told in the image, in the layer and in the denoiser's output.

    Arguments:
        lesion: The lesion, with its place.
        image: ``d'`` of the image ``x``.
        layer: ``d'`` of the layer.
        output: ``d'`` of ``f(x)``.
    """

    lesion: Lesion
    image: Detectability
    layer: Detectability
    output: Detectability

    @property
    def efficiency(self) -> float:
        """``(d' of the layer / d' of the image)^2``: the share of the lesion's information that is left."""
        if self.image.value <= 0:
            return math.nan
        return (max(self.layer.value, 0.0) / self.image.value) ** 2

    def says(self, level: float = LEVEL) -> str:
        """``visible`` to the layer, ``lost`` by it, or ``below the noise`` in the image already."""
        if self.layer.value >= level:
            return "visible"
        return "lost" if self.image.value >= level else "below the noise"


@dataclass(frozen=True, eq=False)
class Probe:
    """What probing one layer with lesions found.

    Arguments:
        x: The slice (H, W), HU.
        signal: What the lesion adds, (H, W), HU.
        denoised: ``f(x)`` and ``f`` of the slice with the lesion, (2, H, W), HU; where the network
            crops, the border is that of ``x``.
        window: The observed part of the slice.
        finding: On the lesion asked for.
        shift: How far the lesion moves the layer, over how far noise does.
        grid: Sizes and contrasts of the map, where one was asked for.
        findings: One for each contrast and, within it, size of the grid.
        recovery: What samples of the layer's invariances keep of the lesion, where they were drawn.
        meta: Where it comes from.
    """

    x: Image
    signal: Image
    denoised: Image
    window: tuple[slice, slice]
    finding: Finding
    shift: Shift
    grid: LesionGrid | None = None
    findings: tuple[Finding, ...] = ()
    recovery: Recovery | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def level(self) -> float:
        """The ``d'`` from which on a lesion counts as visible."""
        return float(self.meta.get("level", LEVEL))

    def map(self, of: str) -> npt.NDArray[np.float64]:
        """``d'`` in ``image``, ``layer`` or ``output``, (contrasts, sizes); empty without a grid."""
        values = np.array([getattr(f, of).value for f in self.findings], dtype=np.float64)
        return values.reshape(-1, len(self.grid.sizes)) if self.grid else values.reshape(0, 0)

    def thresholds(self, of: str) -> list[float | None]:
        """Per contrast the smallest size of the grid, mm, from which on all are visible; None if none."""
        found: list[float | None] = []
        for row in self.map(of):
            seen = int(np.cumprod((row >= self.level)[::-1]).sum())
            found.append(self.grid.sizes[-seen] if self.grid and seen else None)
        return found

    @property
    def verdict(self) -> list[str]:
        """The finding in plain sentences."""
        from .probe_words import verdict

        return verdict(self)

    @property
    def result(self) -> dict[str, Any]:
        """What ``result.json`` holds."""
        from .probe_words import result

        return result(self)


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
    explainers: Mapping[str, Explainer] | None = ...,
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
    explainers: Mapping[str, Explainer] | None = ...,
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
    explainers: Mapping[str, Explainer] | None = None,
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


def _standards(explainers: Mapping[str, Explainer] | None) -> dict[str, tuple[Tensor, Tensor]]:
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
