"""The most telling small change: what moves f(x) most, and what each layer makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.refinement.extremes import extremes
from ctinv.invariance.refinement.sight import Mask, Sight
from ctinv.invariance.reporting.packing import Picture as Shown
from ctinv.invariance.representation.reader import represent

from .about import About
from .answer import Answer, Picture, told

__all__ = ["Attack", "attack"]

_STEPS = 32


@dataclass(frozen=True, eq=False)
class Attack(Answer):
    """A small change that moves ``f(x)`` most, and what each layer makes of it.

    Arguments:
        change: The change, (H, W), HU.
        moved: ``f(x + change) - f(x)``, (H, W), HU; where the network crops, zero outside.
        denoised: ``f(x)``, (H, W), HU.
        size: Its largest pixel, HU.
        gain: RMS of ``moved`` over RMS of the change, over the whole slice.
        noise_gain: The same for noise.
        ratios: Noise ratio of the change in each layer, in the network's order.
    """

    change: Image
    moved: Image
    denoised: Image
    size: float
    gain: float
    noise_gain: float
    ratios: Mapping[str, float]

    kind = "attack"

    @property
    def title(self) -> str:
        return f"The small change that moves f(x) of {self.about.model} most"

    @property
    def verdict(self) -> list[str]:
        lines = [
            f"A change of up to {self.size:g} HU moves f(x) by {self.gain:.2g} times its size; noise moves "
            f"it by {self.noise_gain:.2g} times its own."
        ]
        if self.ratios:
            most = max(self.ratios, key=lambda name: self.ratios[name])
            lines.append(
                f"It moves {most} most, by {self.ratios[most]:.2g} times what the noise there does; "
                f"the output by {self.ratios[OUTPUT]:.2g} times."
            )
        return lines

    @property
    def figures(self) -> Mapping[str, Figure]:
        figures = {
            "gain": told(self.gain, "Gain of the change", "RMS that f(x) moves by, over its own."),
            "noise_gain": told(self.noise_gain, "Gain of noise", "The same for noise."),
        }
        meaning = "How far the change moves it, over how far the noise there does."
        for name, value in self.ratios.items():
            words = "f(x)" if name == OUTPUT else name
            figures[f"ratio_{name}"] = told(value, f"Noise ratio in {words}", meaning)
        return figures

    @property
    def pictures(self) -> list[list[Picture]]:
        return [
            [
                Picture("x, input", self.x),
                Picture("the change", self.change, kind="change"),
                Picture("x with it", self.x + self.change),
            ],
            [
                Picture("f(x)", self.denoised),
                Picture("what f makes of it", self.moved, f"gain {self.gain:.2g}", "change"),
                Picture("f of x with it", self.denoised + self.moved),
            ],
        ]

    @property
    def compared(self) -> list[Shown]:
        return [
            Shown("attack-x", "Attack: x with the change", "ct", self.x + self.change),
            Shown("attack-f", "Attack: f of that", "ct", self.denoised + self.moved),
        ]

    @property
    def images(self) -> Mapping[str, npt.NDArray[Any]]:
        return {"x": self.x, "change": self.change, "moved": self.moved, "denoised": self.denoised}


def attack(
    denoiser: Denoiser,
    x: Image,
    about: About,
    *,
    layers: Sequence[str] | None = None,
    region: Mask | None = None,
    size: float = 20.0,
    steps: int = _STEPS,
    progress: Progress | None = None,
) -> Attack:
    """Find the change of a given size that moves ``f(x)`` most, and follow it through the network.

    The change is the singular vector of largest gain of the denoiser's Jacobian at ``x``, with the
    sign that moves the true ``f`` further.

    Source: Berardino, Ballé, Laparra, Simoncelli, Eigen-distortions of hierarchical representations,
    NeurIPS 2017, https://arxiv.org/abs/1710.02266

    Arguments:
        denoiser: The denoiser, differentiable.
        x: The slice (H, W), HU.
        about: What is asked of.
        layers: Layers to follow it through; all where None.
        region: Where the change may be, bool (H, W); the body where None.
        size: Its largest pixel, HU.
        steps: Lanczos steps.
        progress: Called with (stage, done, total).

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: A size that is not positive, or a region of another shape.
    """
    if not size > 0 or not math.isfinite(size):
        raise CtinvError(f"a change of {size:g} HU shows nothing; give a positive size, such as 20")
    if region is not None and region.shape != x.shape:
        raise CtinvError(f"the region is {region.shape}, the slice {x.shape}; they must agree")
    sight = Sight.of(denoiser, OUTPUT, x, seed=about.seed, spacing=about.spacing)
    whole = sight.body if region is None else sight.whole(region.astype(np.float32)) > 0
    ends = extremes(sight, whole, count=1, steps=steps, seed=about.seed, progress=progress)
    shape = ends.amplified[0].change
    change = np.float32(size / max(float(np.abs(shape).max()), 1e-30)) * shape
    base = _denoised(denoiser, sight.x)
    both = [(sign * change, _denoised(denoiser, sight.x + sign * change) - base) for sign in (1, -1)]
    change, moved = max(both, key=lambda pair: float(np.linalg.norm(pair[1])))
    noise = [_denoised(denoiser, sight.x + n) - base for n in sight.noise]
    names = [layer.name for layer in denoiser.layers] if layers is None else list(layers)
    names = list(dict.fromkeys([*(denoiser.resolve(name).name for name in names), OUTPUT]))
    noise_there = sight.within(whole).noise
    ratios = {}
    for number, name in enumerate(names):
        ratios[name] = Sight.of(
            denoiser, name, x, seed=about.seed, spacing=about.spacing, noise=noise_there
        ).ratio(change)
        if progress:
            progress("layers", number + 1, len(names))
    return Attack(
        about,
        np.array(x),
        change[sight.own],
        moved[sight.own],
        base[sight.own],
        size,
        _gain(moved, change),
        float(np.mean([_gain(m, n) for m, n in zip(noise, sight.noise, strict=True)])),
        ratios,
    )


def _gain(moved: Image, change: Image) -> float:
    return float(np.linalg.norm(moved) / max(float(np.linalg.norm(change)), 1e-30))


def _denoised(denoiser: Denoiser, image: Image) -> Image:
    """``f(x)`` (H, W) in HU; where the network crops, the image itself outside."""
    clean = represent(denoiser, OUTPUT, image[None, None])[0, 0].numpy()
    edge = (image.shape[0] - clean.shape[0]) // 2
    whole = np.array(image)
    whole[edge : edge + clean.shape[0], edge : edge + clean.shape[1]] = clean
    return whole
