"""Pairs of low-dose and full-dose slices, held in memory, and seeded patches from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import Pairs, PatchSampler
from torch import Tensor

__all__ = ["Pair", "TrainingSet"]


@dataclass(frozen=True)
class Pair:
    """One slice at both doses.

    Arguments:
        low: Low-dose versions, float32 (realisations, H, W), HU.
        full: The full-dose slice, float32 (H, W), HU.
        patient: Whose slice it is; held-out sets are made of whole patients.
        label: What to call the slice.
    """

    low: Image
    full: Image
    patient: str
    label: str = ""


class TrainingSet:
    """A set of slice pairs from which patches are drawn.

    Arguments:
        pairs: The slices; sizes may differ.
        division: All patients of the data by part, ``train``, ``validation`` and ``test``, where the
            pairs are those of the training patients.
        notes: What was left out, and why, without any file's name.

    Raises:
        ImageError: There is none, or the two doses of one differ in size.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        division: Mapping[str, Sequence[str]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.pairs, self.division, self.notes = tuple(pairs), division, tuple(notes)
        if not self.pairs:
            raise ImageError("no pair of low-dose and full-dose slices was found; give a folder of CT slices")
        for pair in self.pairs:
            if pair.low.ndim != 3 or pair.low.shape[1:] != pair.full.shape:
                raise ImageError(
                    f"{pair.label or 'a pair'} has doses of shape {pair.low.shape[1:]} and {pair.full.shape};"
                    " they must agree"
                )
        self._samplers: dict[tuple[int, int], PatchSampler] = {}

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients, sorted."""
        return tuple(sorted({pair.patient for pair in self.pairs}))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pixels, so that a resumed training is known to see the same data."""
        digest = hashlib.sha256()
        for pair in self.pairs:
            digest.update(f"{pair.patient}/{pair.label}/{pair.low.shape}/".encode())
            digest.update(pair.low.tobytes())
            digest.update(pair.full.tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.pairs)

    def split(self, every: int = 4) -> tuple[TrainingSet, TrainingSet]:
        """Divide by patient: every ``every``-th of the sorted patients, the last of each group, is held out.

        Returns:
            The training pairs and the held-out pairs.

        Raises:
            ImageError: There are too few patients for both.
        """
        held = set(self.patients[every - 1 :: every])
        if not held or len(held) == len(self.patients):
            raise ImageError(
                f"{len(self.patients)} patients are too few to hold out one in {every}; give more slices"
            )
        return (
            TrainingSet([p for p in self.pairs if p.patient not in held]),
            TrainingSet([p for p in self.pairs if p.patient in held]),
        )

    def batch(self, count: int, size: int, margin: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Patches whose centres lie in the body, turned and flipped at random, every patient equally often.

        Arguments:
            count: Number of patches.
            size: Side of the full-dose patches, in pixels.
            margin: How many more pixels the low-dose patches have on each side.
            rng: Source of every choice made here.

        Returns:
            Low dose (N, 1, size + 2 margin, size + 2 margin) and full dose (N, 1, size, size), HU.

        Raises:
            ImageError: A slice is smaller than a patch.
        """
        if (size, margin) not in self._samplers:
            drawn = [(low, pair) for pair in self.pairs for low in pair.low]
            flat = Pairs(
                tuple(low for low, _ in drawn),
                tuple(pair.full for _, pair in drawn),
                tuple(pair.patient for _, pair in drawn),
                ("",) * len(drawn),
                (None,) * len(drawn),
                "all realisations",
            )
            self._samplers[size, margin] = PatchSampler(flat, size, margin=margin)
        x, y = self._samplers[size, margin].draw(count, rng)
        return torch.from_numpy(x), torch.from_numpy(y)
