"""Refinement: the change nearest to a sample's that the layer does not see.

The flow proposes a change of the image; refinement solves

    min |d - change|^2 + |Phi'(x) d|^2 / mu

and takes the ``mu`` at which the layer's output moves by ``rho`` times what noise moves it: the
discrepancy principle (V. A. Morozov, On the solution of functional equations by the method of
regularization, Soviet Math. Dokl. 7, 1966). All values of ``mu`` share one Krylov space of ``J^T J``,
so that one Lanczos run gives the whole curve over ``rho`` (A. Frommer, P. Maass, Fast CG-based methods
for Tikhonov-Phillips regularization, SIAM J. Sci. Comput. 20, 1999,
https://doi.org/10.1137/S1064827596313310). A short run finds too small a change; it goes on until
twice the steps change its size by less than 3 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import CtinvError
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .jacobian import Linearised
from .krylov import Krylov
from .observer import Observer

__all__ = [
    "RHO",
    "RHOS",
    "TOLERANCE",
    "Refined",
    "affordable",
    "linearised_near",
    "longest",
    "noise_change",
    "refine",
]

RHO = 0.03
"""Noise ratio of a refined sample: the layer moves by at most 3 % of what noise moves it."""

RHOS = (1.0, 0.3, 0.1, RHO, 0.01)
"""Noise ratios of the invariance curve."""

TOLERANCE = 0.03
"""Growth of a change when its steps are doubled, below which it counts as converged."""

_MOST_STEPS = 400
_EXPECTED = 40  # steps that a sample of a flow with a reading takes, at most layers
_SHRINKS = 20  # steps back towards the image before it is given up
_CHECKED = 2  # samples whose noise ratio is read off the true layer all along the curve
_WORK = 4e12  # operations that a default refinement is expected to take, some 30 s on two cores
_LONGEST = 1.2e13  # operations after which it stops, converged or not
_FEWEST, _MOST = 3, 8
_BODY = -900.0  # HU
_RIM = 24  # pixels around the body that are refined with it
_WORTH = 0.85  # share of a slice above which leaving the rest out is not worth while


@dataclass(frozen=True)
class Refined:
    """Changes of one image that the layer does not see beyond given noise ratios.

    Arguments:
        rhos: Noise ratios asked for, falling.
        changes: ``x'' - x`` in HU, (len(rhos), K, H, W).
        reached: The noise ratio that each change has, (len(rhos), K); not a number for further
            samples where it was not read.
        steps: Lanczos steps of the sample that took most.
        growth: By which share the size of the changes grew when the steps were doubled for the last
            time, at the noise ratio that holds for the true layer.
    """

    rhos: tuple[float, ...]
    changes: Image
    reached: npt.NDArray[np.float64]
    steps: int
    growth: float = 0.0

    def at(self, rho: float) -> Image:
        """The changes at one of the noise ratios, (K, H, W), HU."""
        return self.changes[self.rhos.index(rho)]

    @property
    def converged(self) -> bool:
        """Whether twice the steps changed the size of the changes by less than 3 %."""
        return self.growth < TOLERANCE


def noise_change(observer: Observer, x: Image, noise: Image) -> float:
    """``E |Phi(x + n) - Phi(x)|`` over noise realisations.

    Arguments:
        observer: The layer.
        x: The slice (H, W), HU.
        noise: Realisations (K, H, W), HU.
    """
    base = torch.from_numpy(x)[None, None]
    z = observer(base)
    moved = [(observer(base + torch.from_numpy(n)) - z).norm().item() for n in noise]
    return float(np.mean(moved))


def _operations(observer: Observer, x: Image) -> int:
    """Of one run of the layer, which must have run before: a first run may take extra passes."""
    with FlopCounterMode(display=False) as counter:
        observer(torch.from_numpy(x)[None, None])
    return max(int(counter.get_total_flops()), 1)


def affordable(observer: Observer, x: Image) -> int:
    """How many samples of a slice (H, W) a default refinement takes on: 3 to 8, by the layer's cost."""
    one = _operations(observer, x) * (2 * _EXPECTED + 3)
    return int(np.clip(_WORK // one, _FEWEST, _MOST))


def longest(observer: Observer, x: Image, count: int) -> int:
    """Lanczos steps after which ``count`` samples of a slice (H, W) stop, by the layer's cost."""
    return int(np.clip(_LONGEST // (2 * _operations(observer, x) * max(count, 1)), 32, _MOST_STEPS))


def refine(
    observer: Observer,
    x: Image,
    changes: Image,
    noise_moves: float,
    *,
    rho: float = RHO,
    rhos: Sequence[float] = RHOS,
    most: int = _MOST_STEPS,
    progress: Progress | None = None,
    stage: str = "refinement",
) -> Refined:
    """Move changes of an image onto the layer's fibre.

    Arguments:
        observer: The layer, differentiable.
        x: The slice (H, W), HU.
        changes: What is proposed to change, (K, H, W), HU.
        noise_moves: How far noise moves the layer's output, see :func:`noise_change`.
        rho: Noise ratio that holds for the true layer, to 1 %.
        rhos: Further noise ratios; these hold for the linearised layer, and ``reached`` says what
            the true layer does.
        most: Lanczos steps per sample at most; each costs about two passes through the layer. Fewer
            than it takes give smaller changes, never more visible ones.
        progress: Called with (stage, done, total).
        stage: What to call it there.

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
    """
    ratios = tuple(sorted({rho, *rhos}, reverse=True))
    refined = np.zeros((len(ratios), *changes.shape), dtype=np.float32)
    reached = np.zeros((len(ratios), len(changes)))
    base = torch.from_numpy(np.ascontiguousarray(x))[None, None]
    z = observer(base)
    jacobian, part = linearised_near(observer, base, changes)

    def moved(d: Tensor) -> float:
        image = base.clone()
        image[part] += d
        return float((observer(image) - z).norm())

    steps, growths = 0, []
    for k, change in enumerate(changes):
        start = torch.from_numpy(np.ascontiguousarray(change))[None, None][part].contiguous()
        if bool(start.any()):
            krylov = Krylov(jacobian, start)
            growths.append(krylov.grow(rho * noise_moves, most, TOLERANCE))
            steps = max(steps, krylov.steps)
            for row, ratio in enumerate(ratios):
                limit = ratio * noise_moves
                if ratio == rho:
                    d, seen = _within(krylov, limit, moved)
                else:
                    d = krylov.solve(krylov.projection().shift(limit))
                    seen = moved(d) if k < _CHECKED else np.nan
                refined[row, k][part[2:]] = d[0, 0].numpy()
                reached[row, k] = seen / noise_moves if noise_moves > 0 else 0.0
        if progress:
            progress(stage, k + 1, len(changes))
    return Refined(ratios, refined, reached, steps, float(np.mean(growths)) if growths else 0.0)


def linearised_near(
    observer: Observer, base: Tensor, changes: Image
) -> tuple[Linearised, tuple[slice, slice, slice, slice]]:
    """The Jacobian at the part of an image that holds the body, and that part.

    Air around the body would cost as much as the body itself. What is found is held against the
    layer's answer to the whole image in any case.
    """
    everything = (slice(None),) * 4
    inside = base[0, 0].numpy() > _BODY
    if observer.whole and inside.any() and not np.abs(changes[:, ~inside]).max(initial=0) > 100:
        box = tuple(_side(np.asarray(inside.any(axis))) for axis in (1, 0))
        part = (slice(None), slice(None), *box)
        if base[part].numel() < _WORTH * base.numel():
            try:
                return observer.linearise(base[part].contiguous()), part  # type: ignore[return-value]
            except CtinvError:
                pass  # a network that takes images of one size only
    return observer.linearise(base), everything  # type: ignore[return-value]


def _side(occupied: npt.NDArray[np.bool_]) -> slice:
    """The occupied stretch of one axis with its rim, its ends multiples of 8."""
    numbers = np.flatnonzero(occupied)
    first, last = max(0, int(numbers[0]) - _RIM), min(len(occupied), int(numbers[-1]) + 1 + _RIM)
    return slice(first // 8 * 8, min(len(occupied), -(-last // 8) * 8))


def _within(krylov: Krylov, limit: float, moved: Callable[[Tensor], float]) -> tuple[Tensor, float]:
    """The minimiser that moves the true layer by ``limit`` at most, to 1 %."""
    aim, projection = limit, krylov.projection()
    for _ in range(4):
        d = krylov.solve(projection.shift(aim))
        seen = moved(d)
        if seen <= 1.01 * limit:
            return d, seen
        aim *= 0.98 * limit / seen
    for _ in range(_SHRINKS):
        if seen <= 1.01 * limit:
            return d, seen
        d = d * (0.9 * limit / seen)  # where linearisation fails, towards the image itself
        seen = moved(d)
    # A layer that jumps, or is never the same twice: the image itself moves nothing.
    return (d, seen) if seen <= 1.01 * limit else (torch.zeros_like(d), 0.0)
