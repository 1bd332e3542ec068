"""Principal components of samples: the directions along which a layer lets an image change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ctinv.adapters.errors import CtinvError

__all__ = ["Directions", "directions", "step_along"]

Image = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Directions:
    """The main ways in which the samples of one image differ.

    Arguments:
        mean: Mean change, (H, W), HU.
        components: What one standard deviation along each direction changes, (D, H, W), HU; directions
            are orthogonal, the strongest first, and positive where they are largest.
        explained: Share of the samples' variance along each, (D,), falling.
        positions: Where each sample lies along each direction, in standard deviations, (K, D).
    """

    mean: Image
    components: Image
    explained: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64]


def directions(changes: Image, count: int = 5) -> Directions:
    """Principal components of the changes of one image.

    They are combinations of the changes: what is hidden for all changes of a linear layer is hidden
    along them. With few samples the shares of the first are too large.

    Source: Sirovich, Quarterly of Applied Mathematics 45, 1987 (components of few large images by the
    products between the images).

    Arguments:
        changes: ``x' - x`` of samples (K, H, W), HU; two or more.
        count: How many directions at most; there are no more than K - 1.

    Raises:
        CtinvError: Fewer than two changes.

    Example:
        >>> wave = np.outer(np.ones(4), [1.0, -1.0]).astype(np.float32)
        >>> found = directions(np.stack([3 * wave, -3 * wave, 0 * wave]))
        >>> found.components[0][0].tolist(), found.explained.tolist()
        ([3.0, -3.0], [1.0])
    """
    if changes.ndim != 3 or len(changes) < 2:
        raise CtinvError(f"changes of shape {changes.shape} have no directions; give (K, H, W) with K >= 2")
    rows = changes.reshape(len(changes), -1)
    mean = rows.mean(0, dtype=np.float64)
    apart = rows - mean
    values, vectors = np.linalg.eigh(apart @ apart.T)
    values, vectors = values[::-1], vectors[:, ::-1]
    total = max(float(values.sum()), 0.0)
    # What is left by rounding is no direction.
    keep = int((values[: min(count, len(rows) - 1)] > 1e-10 * total).sum())
    values, vectors = values[:keep], vectors[:, :keep]
    degrees = len(rows) - 1
    components = vectors.T @ apart / np.sqrt(degrees)
    if keep:
        peak = np.abs(components).argmax(1)
        sign = np.where(components[np.arange(keep), peak] < 0, -1.0, 1.0)
        components, vectors = components * sign[:, None], vectors * sign
    shape = changes.shape[1:]
    return Directions(
        mean.reshape(shape).astype(np.float32),
        components.reshape(keep, *shape).astype(np.float32),
        values / total if total > 0 else values,
        vectors * np.sqrt(degrees),
    )


def step_along(x: Image, component: Image, amounts: Sequence[float] = (-2.0, -1.0, 0.0, 1.0, 2.0)) -> Image:
    """The images ``x + t component``, (T, H, W), HU, for steps t in standard deviations.

    Arguments:
        x: The slice (H, W), HU.
        component: One of :attr:`Directions.components`, (H, W), HU.
        amounts: The steps.

    Raises:
        CtinvError: Shapes differ.
    """
    if x.shape != component.shape:
        raise CtinvError(f"the slice is {x.shape}, the direction {component.shape}; they must agree")
    steps = np.asarray(amounts, dtype=np.float32)
    return np.asarray(x + steps[:, None, None] * component, dtype=np.float32)
