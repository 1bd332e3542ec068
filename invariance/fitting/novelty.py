"""Novelty: whether an image is unlike those that autoencoder and flow were fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, rng
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from ctinv.invariance.networks.vae import VAE

__all__ = ["FEATURES", "LEVEL", "Novelty", "NoveltyTest", "fit_novelty_test"]

_Numbers = npt.NDArray[np.float64]

FEATURES = {
    "level": "mean HU",
    "range": "spread of HU",
    "low": "its darkest parts",
    "high": "its brightest parts",
    "noise": "fine noise",
    "error": "what the autoencoder cannot express",
}
"""What is looked at in every tile, and what to call it."""

LEVEL = 0.99
"""Share of images like the fitting data that pass."""

_TISSUE = -900.0
_SLICES = 24
_SHIFT = 0.25


@dataclass(frozen=True)
class Novelty:
    """How far an image lies from the fitting data.

    Arguments:
        value: Median squared Mahalanobis distance of its tiles, over what the fitting slices had.
        limit: What ``value`` may be.
        odd: Key of :data:`FEATURES` whose mean over the tiles stands out most.
        away: By how many standard deviations of the fitting slices it does; negative where too low.
        away_limit: What the size of ``away`` may be.
        level: Images like the fitting data stay within both limits with this probability.
        familiar: Whether the image does.
    """

    value: float
    limit: float
    odd: str
    away: float
    away_limit: float
    level: float
    familiar: bool


@dataclass(frozen=True)
class NoveltyTest:
    """What the fitting slices look like, in a few numbers.

    Two things must be usual: the median squared Mahalanobis distance of an image's tiles, whose
    logarithm is about normal over slices, and each feature's mean over the tiles. The limits are ends
    of prediction intervals (Student), so that few fitting slices make them wide, not wrong.

    Source: Lee, Lee, Lee, Shin, A simple unified framework for detecting out-of-distribution samples and
    adversarial attacks, NeurIPS 2018, https://arxiv.org/abs/1807.03888, for distances of this kind.

    Arguments:
        mean: Mean of each feature over tiles.
        whitening: Matrix (features, features) that makes the tiles' features white.
        centre: Mean of the slices' log distance.
        spread: Its standard deviation.
        usual: Mean of each feature's slice means.
        varies: Their standard deviations; a quarter of the tiles' at least.
        slices: How many slices it was learned from.
        patch: Side of the tiles.
    """

    mean: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    centre: float
    spread: float
    usual: tuple[float, ...]
    varies: tuple[float, ...]
    slices: int
    patch: int

    def score(self, x: Image, reconstruction: Image) -> Novelty:
        """Compare an image with the fitting slices.

        Arguments:
            x: The slice (H, W), HU, at least a tile wide.
            reconstruction: ``D(E(x))`` (H, W), HU.

        Raises:
            CtinvError: The slice is smaller than a tile.
        """
        from scipy.stats import t as student

        tiles = _features(x, reconstruction, self.patch)
        distance = _log_distance(tiles, np.array(self.mean), np.array(self.whitening)) - self.centre
        alone, each = (1 - LEVEL) / 2, (1 - LEVEL) / 4 / len(FEATURES)  # one test on one side, six on both
        wide = math.sqrt(1 + 1 / self.slices)
        limit = float(student.isf(alone, self.slices - 1)) * wide * self.spread
        away_limit = float(student.isf(each, self.slices - 1)) * wide
        apart = (tiles.mean(0) - np.array(self.usual)) / np.array(self.varies)
        worst = int(np.abs(apart).argmax())
        return Novelty(
            value=math.exp(min(distance, 300.0)),
            limit=math.exp(min(limit, 300.0)),
            odd=list(FEATURES)[worst],
            away=float(apart[worst]),
            away_limit=away_limit,
            level=LEVEL,
            familiar=bool(distance <= limit and abs(apart[worst]) <= away_limit),
        )

    @classmethod
    def fit(cls, pairs: Sequence[tuple[Image, Image]], patch: int) -> NoveltyTest:
        """Learn from slices and their reconstructions.

        Arguments:
            pairs: (x, D(E(x))) of two slices or more in random order, each (H, W), HU.
            patch: Side of the tiles.

        Raises:
            CtinvError: Fewer than two slices, or one smaller than a tile.
        """
        if len(pairs) < 2:
            raise CtinvError(f"{len(pairs)} slice does not say what is usual; give two or more")
        slices = [_features(x, again, patch) for x, again in pairs]
        logs = np.empty(len(slices))
        for half in (0, 1):  # distances of slices that did not decide what is near
            mean, whitening = _law(np.concatenate(slices[1 - half :: 2]))
            logs[half::2] = [_log_distance(tiles, mean, whitening) for tiles in slices[half::2]]
        mean, whitening = _law(np.concatenate(slices))
        means = np.stack([tiles.mean(0) for tiles in slices])
        # A shift is no news before it compares with the tiles' own spread, however alike slices are.
        least = _SHIFT * np.concatenate(slices).std(0) + 1e-3
        return cls(
            mean=tuple(mean.tolist()),
            whitening=tuple(tuple(row) for row in whitening.tolist()),
            centre=float(logs.mean()),
            spread=float(max(logs.std(ddof=1), 0.05)),
            usual=tuple(means.mean(0).tolist()),
            varies=tuple(np.maximum(means.std(0, ddof=1), least).tolist()),
            slices=len(slices),
            patch=patch,
        )


def fit_novelty_test(
    vae: VAE,
    images: Sequence[Image],
    *,
    overlap: int = 8,
    denoise: Callable[[Image], Image] | None = None,
    slices: int = _SLICES,
    seed: int = 0,
) -> NoveltyTest:
    """Learn what the fitting slices look like, from some of them.

    Arguments:
        vae: The autoencoder.
        images: Fitting slices (H, W), HU, at least a patch wide.
        overlap: Pixels that neighbouring tiles share when a slice is reconstructed.
        denoise: ``f``, (H, W) to (H, W) in HU, for an autoencoder that depends on it.
        slices: How many slices at most.
        seed: Chooses them.

    Raises:
        CtinvError: Fewer than two slices.
    """
    from ctinv.invariance.data.tiling import grid, pad_to
    from ctinv.invariance.sampling.slices import reconstruct

    patch = vae.config.patch
    # At random: data sets may alternate between regions.
    chosen = rng(seed, Purpose.NOVELTY).permutation(len(images))[:slices]
    pairs = []
    for k in chosen.tolist():
        x = pad_to(images[k], patch)
        tiles = grid((x.shape[0], x.shape[1]), patch, overlap)
        pairs.append((x, reconstruct(vae, x, tiles, denoise(x) if denoise else None)))
    return NoveltyTest.fit(pairs, patch)


def _features(x: Image, reconstruction: Image, patch: int) -> _Numbers:
    """Features of a slice's tiles (tiles, features): of those that hold tissue, or of all."""
    if min(x.shape) < patch:
        raise CtinvError(f"the slice is {x.shape}, smaller than a tile of {patch}; pad it")
    smooth = gaussian_filter(np.asarray(x, dtype=np.float64), 1.5)
    calm, fine, error = (_tiles(a, patch) for a in (smooth, np.abs(x - smooth), reconstruction - x))
    held = (calm > _TISSUE).mean(1) > 0.05  # noise in air is no tissue
    keep = held if held.any() else np.ones(len(calm), dtype=bool)
    low, high = np.quantile(calm, (0.05, 0.95), axis=1)
    columns = (
        calm.mean(1),
        np.log(calm.std(1) + 10),
        low,
        high,
        np.log(1.4826 * np.median(fine, 1) + 1),
        np.log(np.sqrt(np.square(error).mean(1)) + 1),
    )
    return np.stack(columns, 1)[keep]


def _tiles(image: npt.NDArray[np.floating], patch: int) -> _Numbers:
    rows, columns = (side // patch for side in image.shape)
    cut = np.asarray(image[: rows * patch, : columns * patch], dtype=np.float64)
    return cut.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows * columns, patch * patch)


def _law(tiles: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Mean and whitening matrix; a feature that never varies counts as varying a little."""
    mean = tiles.mean(0)
    covariance = np.cov(tiles.T) if len(tiles) > 1 else np.zeros((tiles.shape[1],) * 2)
    covariance[np.diag_indices(len(mean))] += 0.01 * covariance.diagonal() + 1e-4
    return mean, np.linalg.inv(np.linalg.cholesky(covariance))


def _log_distance(tiles: _Numbers, mean: _Numbers, whitening: _Numbers) -> float:
    return float(np.log(np.median(np.square((tiles - mean) @ whitening.T).sum(1)) + 1e-12))
