"""Refinement: the change nearest to a sample's that the layer does not see.

The flow proposes a change of the image; refinement solves

    min |d - change|^2 + |Phi'(x) d|^2 / mu

and takes the ``mu`` at which the layer's output moves by ``rho`` times what noise moves it: the
discrepancy principle (Morozov 1966). All values of ``mu`` share one Krylov space of ``J^T J``, so
that one Lanczos run of a few steps gives the whole curve over ``rho`` (shifted systems).

Source: Frommer, Maass, Fast CG-based methods for Tikhonov-Phillips regularization, SIAM Journal on
Scientific Computing 20, 1999, https://doi.org/10.1137/S1064827596313310
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image, Progress
from scipy.linalg import eigh_tridiagonal
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from .jacobian import Linearised
from .observer import Observer

__all__ = ["RHO", "RHOS", "Krylov", "Refined", "affordable", "noise_change", "refine"]

RHO = 0.03
"""Noise ratio of a refined sample: the layer moves by at most 3 % of what noise moves it."""

RHOS = (1.0, 0.3, 0.1, RHO, 0.01)
"""Noise ratios of the invariance curve."""

_STEPS = 10
_SHRINKS = 20  # steps back towards the image before it is given up
_CHECKED = 2  # samples whose noise ratio is read off the true layer all along the curve
_WORK = 1.6e12  # operations that a default refinement may cost, some 30 s on two cores
_FEWEST, _MOST = 3, 20


@dataclass(frozen=True)
class Refined:
    """Changes of one image that the layer does not see beyond given noise ratios.

    Arguments:
        rhos: Noise ratios asked for, falling.
        changes: ``x'' - x`` in HU, (len(rhos), K, H, W).
        reached: The noise ratio that each change has, (len(rhos), K); not a number for further
            samples where it was not read.
        steps: Lanczos steps per sample.
    """

    rhos: tuple[float, ...]
    changes: Image
    reached: npt.NDArray[np.float64]
    steps: int

    def at(self, rho: float) -> Image:
        """The changes at one of the noise ratios, (K, H, W), HU."""
        return self.changes[self.rhos.index(rho)]


class Krylov:
    """Lanczos' projection of ``J^T J`` onto the space that one change spans.

    Arguments:
        jacobian: ``Phi`` linearised at the image.
        change: Image change (1, 1, H, W), HU; not zero.
        steps: Products with ``J^T J``.
    """

    def __init__(self, jacobian: Linearised, change: Tensor, steps: int) -> None:
        self.norm = float(change.norm())
        basis = [change / self.norm]
        diagonal: list[float] = []
        beside: list[float] = []
        for _ in range(steps):
            v = basis[-1]
            w = jacobian.adjoint(jacobian.forward(v))
            diagonal.append(float((w * v).sum()))
            size = float(w.norm())
            for _ in range(2):  # twice is enough to stay orthogonal in single precision
                for u in basis:
                    w = w - (w * u).sum() * u
            left = float(w.norm())
            if left <= 1e-6 * max(size, 1e-30) or len(diagonal) == steps:
                break
            beside.append(left)
            basis.append(w / left)
        self._basis = basis
        values, self._vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        self.values = np.maximum(values, 0.0)
        self._first = self._vectors[0] * self.norm

    def seen(self, mu: float) -> float:
        """``|J d|`` for the minimiser ``d`` at ``mu``, by the linearisation."""
        kept = mu / (self.values + mu) if np.isfinite(mu) else np.ones_like(self.values)
        return float(np.sqrt((self.values * (kept * self._first) ** 2).sum()))

    def shift(self, limit: float) -> float:
        """The largest ``mu`` whose minimiser is seen by no more than ``limit``; infinity where all are."""
        if self.seen(np.inf) <= limit:
            return float(np.inf)
        low, high = -30.0, float(np.log10(self.values.max())) + 8.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (low, middle) if self.seen(10**middle) > limit else (middle, high)
        return float(10**low)

    def solve(self, mu: float) -> Tensor:
        """The minimiser at ``mu``, (1, 1, H, W), HU."""
        kept = mu / (self.values + mu) if np.isfinite(mu) else np.ones_like(self.values)
        found = torch.zeros_like(self._basis[0])
        for weight, v in zip(self._vectors @ (kept * self._first), self._basis, strict=True):
            found += float(weight) * v
        return found


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


def affordable(observer: Observer, x: Image, steps: int = _STEPS) -> int:
    """How many samples of a slice (H, W) a default refinement takes on: 3 to 20, by the layer's cost.

    The layer must have run before: a first run may take extra passes, which must not be counted.
    """
    with FlopCounterMode(display=False) as counter:
        observer(torch.from_numpy(x)[None, None])
    one = counter.get_total_flops() * (2 * steps + 3)
    return int(np.clip(_WORK // max(one, 1), _FEWEST, _MOST))


def refine(
    observer: Observer,
    x: Image,
    changes: Image,
    noise_moves: float,
    *,
    rho: float = RHO,
    rhos: Sequence[float] = RHOS,
    steps: int = _STEPS,
    progress: Progress | None = None,
) -> Refined:
    """Move changes of an image onto the layer's fibre.

    Arguments:
        observer: The layer, differentiable.
        x: The slice (H, W), HU.
        changes: What the flow would change, (K, H, W), HU.
        noise_moves: How far noise moves the layer's output, see :func:`noise_change`.
        rho: Noise ratio that holds for the true layer, to 1 %.
        rhos: Further noise ratios; these hold for the linearised layer, and ``reached`` says what
            the true layer does.
        steps: Lanczos steps per sample; each costs about two passes through the layer. Fewer give
            smaller changes, never more visible ones.
        progress: Called with (stage, done, total).

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
    """
    wanted = tuple(sorted({rho, *rhos}, reverse=True))
    found = np.zeros((len(wanted), *changes.shape), dtype=np.float32)
    reached = np.zeros((len(wanted), len(changes)))
    base = torch.from_numpy(np.ascontiguousarray(x))[None, None]
    jacobian = observer.linearise(base)
    z = jacobian.value

    def moved(d: Tensor) -> float:
        return float((observer(base + d) - z).norm())

    for k, change in enumerate(changes):
        start = torch.from_numpy(np.ascontiguousarray(change))[None, None]
        if bool(start.any()):
            krylov = Krylov(jacobian, start, steps)
            for row, ratio in enumerate(wanted):
                limit = ratio * noise_moves
                if ratio == rho:
                    d, seen = _within(krylov, limit, moved)
                else:
                    d = krylov.solve(krylov.shift(limit))
                    seen = moved(d) if k < _CHECKED else np.nan
                found[row, k] = d[0, 0].numpy()
                reached[row, k] = seen / noise_moves if noise_moves > 0 else 0.0
        if progress:
            progress("refinement", k + 1, len(changes))
    return Refined(wanted, found, reached, steps)


def _within(krylov: Krylov, limit: float, moved: Callable[[Tensor], float]) -> tuple[Tensor, float]:
    """The minimiser that moves the true layer by ``limit`` at most, to 1 %."""
    aim = limit
    for _ in range(4):
        d = krylov.solve(krylov.shift(aim))
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
