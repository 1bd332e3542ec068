"""Aligned patches of two doses, drawn from the body at random but reproducibly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.infra.randomness import Purpose, rng
from numpy.typing import NDArray

from .pairs import PairSource, Split, body_mask, split_patients

__all__ = ["PatchSampler"]

_STRIDE = 4  # grid of candidate centres, pixels


class PatchSampler:
    """Draws pairs of patches ``(x, y)``, every patient equally often.

    A slice is drawn with weight 1 / (its patient's number of slices), a patch centre evenly from
    the body (so that air does not dominate; anywhere where there is no body), and the pair is
    flipped and turned by quarters.

    Arguments:
        pairs: Where slices come from: :class:`~ctinv.invariance.data.pairs.Pairs`, a data set on disk, or
            a plain list of (low, high) images in HU, each then a patient of its own.
        size: Side of a patch in pixels.
        seed: Same seed, same patches; it also decides the division of patients.
        split: ``train``, ``validation`` or ``test`` patients only; all where None.
        augment: Whether to flip and turn.
        patches_per_slice: How many patches in a row come from one slice; more spares the disk.
        margin: How many more pixels the low-dose patches have on each side.

    Attributes:
        indices: The pairs that are drawn from.
        split: As given.

    Raises:
        ImageError: An unknown split, or one without patients, or a patch size below 1.

    Example:
        >>> from ctinv.invariance.data import Pairs
        >>> image = np.zeros((32, 32), np.float32)
        >>> pairs = Pairs((image,), (image,), ("a",), ("abdomen",), (None,), "one empty slice")
        >>> x, y = PatchSampler(pairs, size=16, seed=0).draw(3)
        >>> x.shape
        (3, 1, 16, 16)
    """

    def __init__(
        self,
        pairs: PairSource | Sequence[tuple[Image, Image]],
        size: int,
        seed: int = 0,
        *,
        split: Split | None = None,
        augment: bool = True,
        patches_per_slice: int = 1,
        margin: int = 0,
    ) -> None:
        if size < 1 or patches_per_slice < 1:
            raise ImageError(
                f"patch size {size} and patches per slice {patches_per_slice} must be at least 1"
            )
        if split not in (None, "train", "validation", "test"):
            raise ImageError(f"split {split!r} is not known; choose train, validation or test")
        self.pairs = pairs
        self.size = size
        self.split = split
        self.augment = augment
        self.patches_per_slice = patches_per_slice
        self.margin = margin
        alone = [str(i) for i in range(len(pairs))]
        patients = list(getattr(pairs, "patients", alone))
        chosen = np.ones(len(patients), dtype=bool)
        if split is not None:
            parts = split_patients(patients, getattr(pairs, "regions", [""] * len(pairs)), seed)
            chosen = np.array([parts[p] == split for p in patients])
        self.indices: NDArray[np.int64] = np.flatnonzero(chosen)
        if self.indices.size == 0:
            raise ImageError(f"no patient falls to the {split} part; give data of more patients")
        _, owner, counts = np.unique(
            np.array(patients)[self.indices], return_inverse=True, return_counts=True
        )
        weights = 1.0 / counts[owner]
        self.weights: NDArray[np.float64] = weights / weights.sum()
        self._cumulative = np.cumsum(self.weights)
        self._rng = rng(seed, Purpose.PATCHES, size)
        self._centres: OrderedDict[int, NDArray[np.int32]] = OrderedDict()

    def draw(self, n: int, rng: np.random.Generator | None = None) -> tuple[Image, Image]:
        """The next patches.

        Arguments:
            n: How many.
            rng: Source of every choice made here, in place of the sampler's own.

        Returns:
            Low dose, float32 (n, 1, size + 2 margin, size + 2 margin), and high dose (n, 1, size, size), HU.

        Raises:
            ImageError: A slice is smaller than a patch.
        """
        rng, wide = rng or self._rng, self.size + 2 * self.margin
        x = np.empty((n, 1, wide, wide), dtype=np.float32)
        y = np.empty((n, 1, self.size, self.size), dtype=np.float32)
        done = 0
        while done < n:
            point = rng.random() * self._cumulative[-1]
            index = int(
                self.indices[min(int(np.searchsorted(self._cumulative, point)), self.indices.size - 1)]
            )
            low, high = self.pairs[index]
            if min(low.shape) < wide:
                raise ImageError(
                    f"slice {index} has {low.shape[0]} x {low.shape[1]} pixels; a patch needs {wide}"
                )
            for _ in range(min(self.patches_per_slice, n - done)):
                self._cut(index, low, high, x[done, 0], y[done, 0], rng)
                done += 1
        return x, y

    def _cut(self, index: int, low: Image, high: Image, x: Image, y: Image, rng: np.random.Generator) -> None:
        centres = self._candidates(index, high)
        row, column = centres[int(rng.integers(len(centres)))] + rng.integers(_STRIDE, size=2)
        wide, inner = len(x), slice(self.margin, self.margin + self.size)
        top = int(np.clip(row - wide // 2, 0, low.shape[0] - wide))
        left = int(np.clip(column - wide // 2, 0, low.shape[1] - wide))
        window = (slice(top, top + wide), slice(left, left + wide))
        turns, flip = (int(rng.integers(4)), bool(rng.integers(2))) if self.augment else (0, False)
        for source, target in ((low[window], x), (high[window][inner, inner], y)):
            patch = np.rot90(source, turns)
            target[...] = patch[:, ::-1] if flip else patch

    def _candidates(self, index: int, high: Image) -> NDArray[np.int32]:
        """Body pixels on a coarse grid; remembered for the latest 4096 slices, some 30 kB each."""
        if index in self._centres:
            self._centres.move_to_end(index)
            return self._centres[index]
        mask = body_mask(high[::_STRIDE, ::_STRIDE])
        centres = (np.argwhere(mask if mask.any() else np.ones_like(mask)) * _STRIDE).astype(np.int32)
        self._centres[index] = centres
        if len(self._centres) > 4096:
            self._centres.popitem(last=False)
        return centres
