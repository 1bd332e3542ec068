"""Lanczos' projection of ``J^T J`` onto the space that one change spans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .jacobian import Linearised

__all__ = ["Krylov", "Projection"]

_FIRST = 16  # steps before which growth is not looked at: changes may stand still for a while
_BETWEEN = 4
_TOGETHER = 16  # vectors in one block of memory: between larger blocks that come and go, each leaves a hole
_NOTHING = 1e-6  # of a vector, from which on its rest is rounding

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """The problem of one change in the basis of some Lanczos steps.

    Arguments:
        values: Eigenvalues of the projected ``J^T J``.
        vectors: Its eigenvectors, in columns.
        first: Share of the change along each, HU.
    """

    values: Numbers
    vectors: Numbers
    first: Numbers

    def left(self, mu: float) -> Numbers:
        """What the minimiser at ``mu`` leaves of the change along each eigenvector, HU."""
        return self.first * (mu / (self.values + mu) if np.isfinite(mu) else 1.0)

    def seen(self, mu: float) -> float:
        """``|J d|`` for the minimiser ``d`` at ``mu``, by the linearisation."""
        return float(np.sqrt((self.values * self.left(mu) ** 2).sum()))

    def size(self, mu: float) -> float:
        """``|d|`` for the minimiser ``d`` at ``mu``, HU."""
        return float(np.linalg.norm(self.left(mu)))

    def shift(self, limit: float) -> float:
        """The largest ``mu`` whose minimiser is seen by no more than ``limit``; infinity where all are."""
        if self.seen(np.inf) <= limit:
            return float(np.inf)
        low, high = -30.0, float(np.log10(self.values.max())) + 8.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (low, middle) if self.seen(10**middle) > limit else (middle, high)
        return float(10**low)


class Krylov:
    """The Krylov space of ``J^T J`` and one change, which grows as long as it is worth while.

    Its vectors are not kept orthogonal. In single precision some eigenvalues then come twice, which
    changes neither the solution nor its size (A. Greenbaum, Behavior of slightly perturbed Lanczos and
    conjugate-gradient recurrences, Linear Algebra Appl. 113, 1989,
    https://doi.org/10.1016/0024-3795(89)90285-1).

    Arguments:
        jacobian: ``Phi`` linearised at the image.
        change: Image change (1, 1, H, W), HU; not zero.
    """

    def __init__(self, jacobian: Linearised, change: Tensor) -> None:
        self._jacobian = jacobian
        self.norm = float(change.norm())
        self._basis: list[Tensor] = []
        self._keep(change / self.norm)
        self._diagonal: list[float] = []
        self._beside: list[float] = []
        self._next = self._basis[0]
        self.exhausted = False

    def _keep(self, v: Tensor) -> None:
        """Add a vector to the basis."""
        place = len(self._basis) % _TOGETHER
        if not place:
            self._block = v.new_empty((_TOGETHER, *v.shape))
        self._block[place] = v
        self._basis.append(self._block[place])

    @property
    def steps(self) -> int:
        """Products with ``J^T J`` so far."""
        return len(self._diagonal)

    def extend(self, steps: int) -> None:
        """Go on by so many steps, or until the space holds the whole solution."""
        for _ in range(steps):
            if self.exhausted:
                return
            if self.steps == len(self._basis):
                self._keep(self._next)
            v = self._basis[-1]
            w = self._jacobian.adjoint(self._jacobian.forward(v))
            size = float(w.norm())
            along = float((w * v).sum())
            self._diagonal.append(along)
            w = w - along * v
            if self.steps > 1:
                w = w - self._beside[-1] * self._basis[-2]
            w = w - (w * v).sum() * v  # what rounding has left along the last vector
            left = float(w.norm())
            self.exhausted = left <= _NOTHING * max(size, 1e-30)
            if not self.exhausted:
                self._beside.append(left)
                self._next = w / left

    def projection(self, steps: int | None = None) -> Projection:
        """The problem in the basis of the first steps; of all where None."""
        count = self.steps if steps is None else min(steps, self.steps)
        values, vectors = eigh_tridiagonal(
            np.array(self._diagonal[:count]), np.array(self._beside[: count - 1])
        )
        return Projection(np.maximum(values, 0.0), vectors, vectors[0] * self.norm)

    def grow(self, limit: float, most: int, tolerance: float) -> float:
        """Extend until doubling the steps enlarges the change by less than a share.

        Arguments:
            limit: How far the change may move the layer.
            most: Steps at most.
            tolerance: The share.

        Returns:
            The share by which the last doubling enlarged it; 0 where there is nothing more to find.
        """

        def size(steps: int) -> float:
            projection = self.projection(steps)
            return projection.size(projection.shift(limit))

        self.extend(min(_FIRST, most))
        while not self.exhausted:
            growth = size(self.steps) / max(size(max(1, self.steps // 2)), 1e-30) - 1
            if growth < tolerance or self.steps >= most:
                return max(growth, 0.0)
            self.extend(min(_BETWEEN, most - self.steps))
        return 0.0

    def solve(self, mu: float) -> Tensor:
        """The minimiser at ``mu``, (1, 1, H, W), HU."""
        projection = self.projection()
        solution = torch.zeros_like(self._basis[0])
        for weight, v in zip(projection.vectors @ projection.left(mu), self._basis, strict=False):
            solution += float(weight) * v
        return solution
