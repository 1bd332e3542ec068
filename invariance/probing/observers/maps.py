"""Observers of a layer: channels over space, all of its maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .study import Learned, Study, hotelling_template, read_study

__all__ = ["judge_maps", "map_template", "plain_template"]

_MIXED = 2
_WORTH = 0.05
_FLOOR = 0.01


def map_template(
    first: NDArray[np.float64], second: NDArray[np.float64], mixed: int = _MIXED, floor: float = _FLOOR
) -> Learned:
    """Weights (C x K,) of the best linear observer of a few mixtures of the maps, seen through all channels.

    The mixtures are those in which the change stands out most from the noise: the maps are prewhitened
    with their covariance over all channels and cases, and the main directions of the whitened change are
    kept. So a layer of 64 maps needs no more cases to learn from than four images would.

    Arguments:
        first: Responses without the signal, (n, C, K).
        second: Responses with it.
        mixed: How many mixtures at most.
        floor: The observer's own noise, as a share of every map's: he does not use what lies 20 dB below it.
    """
    maps, channels = first.shape[1:]
    change = second.mean(0) - first.mean(0)
    if maps == 1:
        return Learned(hotelling_template(first[:, 0], second[:, 0], floor), channels)
    residual = np.concatenate([first - first.mean(0), second - second.mean(0)])
    spread = np.sqrt(np.square(residual).mean((0, 1)))
    if not spread.max() > 0:
        return Learned(change.ravel())
    scale = 1 / np.where(spread > 1e-12 * spread.max(), spread, np.inf)
    flat = (residual * scale).transpose(1, 0, 2).reshape(maps, -1)
    covariance = flat @ flat.T / flat.shape[1]
    diagonal = np.diag(covariance).copy()
    least = diagonal[diagonal > 0].min()
    covariance += floor * np.diag(np.where(diagonal > 0, diagonal, least))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(np.maximum(values, 1e-300))
    u, sizes, _ = np.linalg.svd(whiten.T @ (change * scale), full_matrices=False)
    kept = u[:, : min(mixed, channels)][:, sizes[: min(mixed, channels)] > _WORTH * max(sizes[0], 1e-300)]
    if kept.shape[1] == 0:
        return Learned(np.zeros(maps * channels))
    mix = whiten @ kept  # (C, R)
    features = [np.einsum("cr,nck->nrk", mix, part).reshape(len(part), -1) for part in (first, second)]
    weights = hotelling_template(features[0], features[1], floor).reshape(mix.shape[1], channels)
    return Learned((mix @ weights).ravel(), weights.size)


def plain_template(first: NDArray[np.float64], second: NDArray[np.float64]) -> Learned:
    """Weights (C x K,) of an observer who does not prewhiten: the mean change itself."""
    return Learned((second.mean(0) - first.mean(0)).ravel())


def judge_maps(
    first: NDArray[Any], second: NDArray[Any], *, prewhitens: bool = True, **options: Any
) -> Study:
    """Teach and judge an observer of a layer.

    Arguments:
        first: Channel responses without the signal, (n, C, K).
        second: Channel responses with it.
        prewhitens: Whether he knows the noise.
        options: Those of :func:`~.study.read_study`.

    Raises:
        CtinvError: Too few cases.
    """
    learn = map_template if prewhitens else plain_template
    a, b = (np.asarray(part, dtype=np.float64) for part in (first, second))

    def template(i: NDArray[np.intp], j: NDArray[np.intp]) -> Learned:
        return learn(a[i], b[j])

    return read_study(a.reshape(len(a), -1), b.reshape(len(b), -1), template, **options)
