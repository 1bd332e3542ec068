"""The two ends of a layer's spectrum at one slice: pictures, gains, and how far they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Figure
from ctinv.invariance.refinement.extremes import Extreme, curvature, extremes, radius
from ctinv.invariance.refinement.nearby import nearby
from ctinv.invariance.refinement.refine import RHO
from ctinv.invariance.refinement.sight import Mask, Sight

from .about import About
from .answer import Answer, Picture, told

__all__ = ["Direction", "Spectrum", "spectrum"]

_STEPS = 96
_WELL = 0.1  # index of non-linearity up to which the linear reading is called good


@dataclass(frozen=True, eq=False)
class Direction:
    """One change at an end of the spectrum, at the size that was asked for.

    Arguments:
        change: (H, W), HU.
        gain: How well the layer sees it for its size, over how well it sees noise; linearised.
        ratio: How far it moves the true layer, over how far the noise inside the region does.
        radius: How large it may be made until the true layer moves by the noise ratio, HU RMS in the
            region; infinity where it is hidden at 1000.
        curvature: Index of non-linearity at this size: what the linear reading misses, over how far
            noise of this size moves the layer.
        error: How far it is from a singular vector, as a share of the largest gain squared.
    """

    change: Image
    gain: float
    ratio: float
    radius: float
    curvature: float
    error: float


@dataclass(frozen=True, eq=False)
class Spectrum(Answer):
    """The changes of one size that a layer sees least and most, at one slice.

    Arguments:
        hidden: Those that it sees least, by rising gain.
        amplified: Those that it sees most, by falling gain.
        size: Their size, HU RMS inside the region.
        region: Where they may be, bool (H, W).
        steps: Lanczos steps of the longest run.
        where: The region in words, such as ``in bone``; empty for the body.
    """

    hidden: tuple[Direction, ...]
    amplified: tuple[Direction, ...]
    size: float
    region: Mask
    steps: int
    where: str = ""

    kind = "spectrum"

    @property
    def title(self) -> str:
        return f"What {self.about.layer} of {self.about.model} sees least and most{self._there}"

    @property
    def part(self) -> str:
        return self.where

    @property
    def _there(self) -> str:
        return f" {self.where}" if self.where else ""

    @property
    def verdict(self) -> list[str]:
        name, rho = self.about.layer, self.about.rho or RHO
        least, most = self.hidden[0], self.amplified[0]
        lines = []
        if most.gain > 0:
            lines.append(
                f"{name} sees its most telling change{self._there} {most.gain:.2g} times as well as noise of "
                f"that size, and its most hidden one {least.gain:.2g} times."
            )
        else:
            lines.append(f"{name} sees no change at all{self._there}.")
        small = f"moves it by less than {100 * rho:g} % of what noise there does"
        size = "whatever its size" if math.isinf(least.radius) else f"up to {least.radius:.1f} HU RMS"
        lines.append(f"The most hidden change {small} {size}.")
        worst = max(self.hidden + self.amplified, key=lambda d: d.curvature)
        held = "holds" if worst.curvature <= _WELL else "does not hold"
        lines.append(
            f"At {self.size:g} HU RMS the linear reading {held} (index of non-linearity up to "
            f"{worst.curvature:.2g}; 0 is linear)."
        )
        return lines

    @property
    def figures(self) -> Mapping[str, Figure]:
        rho, size = self.about.rho or RHO, f"{self.size:g} HU RMS"
        figures: dict[str, Figure] = {}
        ends = (("hidden", self.hidden, "Most hidden"), ("amplified", self.amplified, "Most amplified"))
        for end, directions, words in ends:
            for k, d in enumerate(directions, start=1):
                name = f"{words} {k}"
                for key, value, title, meaning, unit in (
                    ("gain", d.gain, "gain", "1: seen as noise of its size is.", ""),
                    (
                        "ratio",
                        d.ratio,
                        "noise ratio",
                        f"At {size}: its move over that by noise.",
                        "",
                    ),
                    ("radius", d.radius, "hidden up to", f"RMS size that keeps noise ratio {rho:g}.", "HU"),
                    ("curvature", d.curvature, "non-linearity", f"Index at {size}; 0 is linear.", ""),
                ):
                    figures[f"{end}_{k}_{key}"] = told(value, f"{name}: {title}", meaning, unit)
        return figures

    @property
    def pictures(self) -> list[list[Picture]]:
        def row(directions: tuple[Direction, ...], words: str) -> list[Picture]:
            return [
                Picture(f"{words} {k}", d.change, f"gain {d.gain:.2g}", "change")
                for k, d in enumerate(directions[:3], start=1)
            ]

        hidden, amplified = self.hidden[0].change, self.amplified[0].change
        return [
            [
                Picture("x, input", self.x),
                Picture("x + most hidden", self.x + hidden),
                Picture("x + most amplified", self.x + amplified),
            ],
            row(self.hidden, "most hidden"),
            row(self.amplified, "most amplified"),
        ]

    @property
    def images(self) -> Mapping[str, npt.NDArray[Any]]:
        return {
            "x": self.x,
            "hidden": np.stack([d.change for d in self.hidden]),
            "amplified": np.stack([d.change for d in self.amplified]),
            "region": self.region,
        }


def spectrum(
    sight: Sight,
    about: About,
    *,
    region: Mask | None = None,
    size: float = 10.0,
    count: int = 3,
    steps: int = _STEPS,
    rho: float = RHO,
    where: str = "",
    progress: Progress | None = None,
) -> Spectrum:
    """Find both ends of a layer's spectrum at a slice, and how far they hold.

    Arguments:
        sight: The layer at the slice, differentiable.
        about: What is asked of.
        region: Where changes may be, bool (H, W); the body where None.
        size: Size of the changes, HU RMS inside the region.
        count: How many at each end.
        steps: Lanczos steps at most.
        rho: The noise ratio that counts as hidden.
        where: The region in words.
        progress: Called with (stage, done, total).

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
        CtinvError: A region of another shape or outside the body, or a size that is not positive.
    """
    if not size > 0 or not math.isfinite(size):
        raise CtinvError(f"changes of {size:g} HU show nothing; give a positive size, such as 10")
    x = sight.x[sight.own]
    if region is not None and region.shape != x.shape:
        raise CtinvError(f"the region is {region.shape}, the slice {x.shape}; they must agree")
    whole = sight.body if region is None else sight.whole(region.astype(np.float32)) > 0
    near = nearby(sight.within(whole), whole)
    local = near.sight
    extreme = extremes(local, near.cut(whole), count=count, steps=steps, seed=about.seed, progress=progress)

    entries = extreme.hidden + extreme.amplified
    changes = np.stack([np.float32(size) * entry.change for entry in entries])
    bent = curvature(local, changes, extreme.noise_gain)

    def direction(entry: Extreme, change: Image, index: float) -> Direction:
        moved = entry.gain * extreme.noise_gain * float(np.linalg.norm(entry.change))
        guess = rho * local.moves / moved if moved > 0 else math.inf
        return Direction(
            near.put(change)[sight.own],
            entry.gain,
            local.ratio(change),
            radius(local, entry.change, rho, guess=guess),
            index,
            entry.error,
        )

    all_of_them = [direction(e, c, float(b)) for e, c, b in zip(entries, changes, bent, strict=True)]
    few = len(extreme.hidden)
    ends = tuple(all_of_them[:few]), tuple(all_of_them[few:])
    return Spectrum(about, np.array(x), ends[0], ends[1], size, whole[sight.own], extreme.steps, where)
