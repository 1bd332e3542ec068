"""``spectrum``, ``hide`` and ``attack``: questions about one slice that need no fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.tiling import as_slice
from ctinv.invariance.probing.lesions import Lesion, lesion_signal, nearest_place, place_lesion
from ctinv.invariance.refinement.observer import ChannelStatistics
from ctinv.invariance.refinement.refine import RHO
from ctinv.invariance.refinement.sight import Sight

from . import attack as _attack
from . import hide as _hide
from . import spectrum as _spectrum
from .about import About
from .regions import contrast_in, tissues

__all__ = ["attack", "hide", "positive", "spectra", "spectrum"]

_SPACING = (0.8, 0.8)  # mm, where it is not known


def spectrum(
    denoiser: Denoiser,
    layer: str,
    image: Any,
    *,
    region: Any = None,
    size: float = 10.0,
    count: int = 3,
    steps: int = 96,
    rho: float = RHO,
    seed: int = 0,
    where: str = "",
    statistics: ChannelStatistics | None = None,
    progress: Progress | None = None,
) -> _spectrum.Spectrum:
    """The changes of one size that a layer sees least and most, with their gain and how far they hold.

    Arguments:
        denoiser: The denoiser; it needs gradients, no fit.
        layer: Any name of the layer.
        image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
        region: Where changes may be, bool (H, W); the body where None.
        size: Their size, HU RMS inside the region.
        count: How many at each end.
        steps: Lanczos steps at most; more find better hidden changes.
        rho: The noise ratio that counts as hidden.
        seed: Draws the noise and the starts.
        where: The region in words, such as ``in the liver``.
        statistics: The channels' mean and spread; those at this slice where None.
        progress: Called with (stage, done, total).

    Raises:
        LayerError: No such layer.
        ImageError: Not a slice.
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: A region of another shape or outside the body, or a size that is not positive.
    """
    x = as_slice(image)
    denoiser = denoiser.apart()
    about = About.of(denoiser, layer, image, seed=seed, rho=positive(rho))
    sight = Sight.of(denoiser, about.layer, x, seed=seed, spacing=about.spacing, statistics=statistics)
    part = None if region is None else np.asarray(region).astype(bool)
    return _spectrum.spectrum(
        sight,
        about,
        region=part,
        size=size,
        count=count,
        steps=steps,
        rho=rho,
        where=where,
        progress=progress,
    )


def spectra(denoiser: Denoiser, layer: str, image: Any, **options: Any) -> tuple[_spectrum.Spectrum, ...]:
    """:func:`spectrum` in each tissue of a slice by itself: air within the body, lung, fat, soft tissue, ...

    Arguments:
        denoiser: The denoiser; it needs gradients, no fit.
        layer: Any name of the layer.
        image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
        options: Those of :func:`spectrum` but ``region`` and ``where``.

    Returns:
        One for each tissue that covers half a per cent of the slice or more.

    Raises:
        CtinvError: As there; or no tissue covers so much.
    """
    parts = tissues(as_slice(image))
    if not parts:
        raise CtinvError("no tissue covers half a per cent of the slice; name a region instead")
    return tuple(
        spectrum(denoiser, layer, image, region=region, where=f"in {name}", **options)
        for name, region in parts.items()
    )


def hide(
    denoiser: Denoiser,
    layer: str,
    image: Any,
    *,
    lesion: Lesion | None = None,
    region: Any = None,
    what: str | None = None,
    rho: float = RHO,
    realisations: int = 64,
    seed: int = 0,
    statistics: ChannelStatistics | None = None,
    progress: Progress | None = None,
) -> _hide.Vanishing:
    """Whether something can be absent: which share of its contrast may vanish without the layer noticing.

    Either a lesion is put into the slice first and asked about, or a region of the slice is: what
    stands out in it against its rim.

    Arguments:
        denoiser: The denoiser; it needs gradients, no fit.
        layer: Any name of the layer.
        image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
        lesion: The lesion; without a place it goes into the most homogeneous soft tissue.
        region: What is asked about, bool (H, W).
        what: The region in words; "the region" where None.
        rho: The noise ratio that counts as not noticing.
        realisations: Noise realisations for ``d'``, 16 or more; 0 leaves it out.
        seed: Draws the noise.
        statistics: The channels' mean and spread; those at this slice where None.
        progress: Called with (stage, done, total).

    Raises:
        LayerError: No such layer.
        ImageError: Not a slice, or no place for the lesion.
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: Both or neither of lesion and region, a region of another shape or without contrast.
    """
    if (lesion is None) == (region is None):
        raise CtinvError("ask either about a lesion or about a region of the slice: give one of the two")
    if 0 < realisations < 16 or realisations < 0:
        raise CtinvError(f"{realisations} noise realisations tell nothing about noise; give 16 or more, or 0")
    x = as_slice(image)
    denoiser = denoiser.apart()
    about = About.of(denoiser, layer, image, seed=seed, rho=positive(rho))
    if lesion is not None:
        signal, words, notice = _inserted(x, lesion, about.spacing or _SPACING)
        x = x + signal
        about = replace(about, notices=(*about.notices, *([notice] if notice else [])))
    else:
        where = np.asarray(region).astype(bool)
        if where.shape != x.shape:
            raise CtinvError(f"the region is {where.shape}, the slice {x.shape}; they must agree")
        signal, words = contrast_in(x, where), what or "the region"
    sight = Sight.of(denoiser, about.layer, x, seed=seed, spacing=about.spacing, statistics=statistics)
    return _hide.vanish(sight, about, signal, words, rho=rho, realisations=realisations, progress=progress)


def _inserted(x: Image, lesion: Lesion, spacing: tuple[float, float]) -> tuple[Image, str, str | None]:
    """What a lesion adds to a slice, the lesion in words, and what the user should know of its place."""
    notice = None
    if lesion.at is None:
        at, size, notice = nearest_place(x, lesion.size, spacing)
        lesion = replace(lesion, size=size)
    else:
        at = place_lesion(x, lesion, spacing)
    words = f"a lesion of {lesion} at column {at[0]}, row {at[1]}"
    return lesion_signal((x.shape[0], x.shape[1]), lesion, at, spacing), words, notice


def attack(
    denoiser: Denoiser,
    image: Any,
    *,
    layers: Sequence[str] | None = None,
    region: Any = None,
    size: float = 20.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> _attack.Attack:
    """The small change that moves ``f(x)`` most, and what each layer makes of it.

    Arguments:
        denoiser: The denoiser; it needs gradients, no fit.
        image: One slice (H, W) in HU, an array or a :class:`ctinv.invariance.data.CTSlice`.
        layers: Layers to follow it through; all where None.
        region: Where the change may be, bool (H, W); the body where None.
        size: Its largest pixel, HU.
        seed: Draws the noise and the start.
        progress: Called with (stage, done, total).

    Raises:
        LayerError: No such layer.
        ImageError: Not a slice.
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: A size that is not positive, or a region of another shape.
    """
    x = as_slice(image)
    denoiser = denoiser.apart()
    about = About.of(denoiser, OUTPUT, image, seed=seed)
    where = None if region is None else np.asarray(region).astype(bool)
    return _attack.attack(denoiser, x, about, layers=layers, region=where, size=size, progress=progress)


def positive(rho: float) -> float:
    """A noise ratio that makes sense.

    Raises:
        CtinvError: It is not positive.
    """
    if not rho > 0:
        raise CtinvError(f"the noise ratio {rho:g} is not positive; 0.01 to 1 make sense")
    return rho
