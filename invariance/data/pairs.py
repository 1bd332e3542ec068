"""Slices at two doses, and their division into training, validation and test patients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

__all__ = ["PairSource", "Pairs", "Split", "body_mask", "grouped", "region_of", "split_patients"]

Split = Literal["train", "validation", "test"]
_TEST, _VALIDATION = 0.1, 0.2
_FEWEST = 5  # patients below which none can be spared


class PairSource(Protocol):
    """What patches can be drawn from: pairs in memory, or a data set on disk."""

    @property
    def patients(self) -> Sequence[str]:
        """The patient of each pair."""
        ...

    @property
    def regions(self) -> Sequence[str]:
        """The body part of each pair."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image, Image]:
        """Low dose and high dose, float32 (H, W), HU."""
        ...


@dataclass(frozen=True, eq=False)
class Pairs:
    """Slice pairs in memory.

    Arguments:
        low: Low-dose slices ``x``, float32 (H, W), HU; sizes may differ.
        high: High-dose slices ``y``, each of its twin's size.
        patients: The patient of each pair.
        regions: The body part of each pair.
        spacings: Row and column spacing of each pair in mm, or None.
        description: One sentence on where they are from, for reports.
        split: All patients of the data by part, ``train``, ``validation`` and ``test``, where the pairs
            were drawn from one part; see :func:`grouped`.
        notes: What was left out, and why, without any file's name.

    Raises:
        ImageError: Nothing in it, or lengths or sizes that do not agree.
    """

    low: tuple[Image, ...]
    high: tuple[Image, ...]
    patients: tuple[str, ...]
    regions: tuple[str, ...]
    spacings: tuple[tuple[float, float] | None, ...]
    description: str
    split: Mapping[str, tuple[str, ...]] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.low:
            raise ImageError("there is no pair of slices; give at least one")
        if len({len(v) for v in (self.low, self.high, self.patients, self.regions, self.spacings)}) != 1:
            raise ImageError("low, high, patients, regions and spacings differ in length")
        for index, (x, y) in enumerate(zip(self.low, self.high, strict=True)):
            if x.ndim != 2 or x.shape != y.shape:
                raise ImageError(
                    f"pair {index} has sizes {x.shape} and {y.shape}; both must be the same (H, W)"
                )

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, index: int, /) -> tuple[Image, Image]:
        return self.low[index], self.high[index]


def split_patients(patients: Sequence[str], regions: Sequence[str], seed: int = 0) -> dict[str, Split]:
    """Assign every patient to training (70 %), validation (20 %) or test (10 %), per body part.

    The order within a body part comes from a hash of seed and patient, so that it does not depend
    on the order in which slices were found. Small body parts fill training first: a test patient
    needs five patients, a validation patient three. Fewer than five patients in all are not divided:
    all of them train.

    Arguments:
        patients: The patient of each slice.
        regions: The body part of each slice; a patient belongs to the part of its first slice.
        seed: Another seed, another division.

    Returns:
        Patient to ``train``, ``validation`` or ``test``.

    Example:
        >>> split = split_patients([f"L{i:03d}" for i in range(50)], ["abdomen"] * 50)
        >>> [sum(s == part for s in split.values()) for part in ("train", "validation", "test")]
        [35, 10, 5]
    """
    first: dict[str, str] = {}
    for patient, region in zip(patients, regions, strict=True):
        first.setdefault(patient, region)
    result: dict[str, Split] = {}
    if len(first) < _FEWEST:
        return dict.fromkeys(first, "train")
    for region in sorted(set(first.values())):
        members = sorted(
            (p for p, r in first.items() if r == region),
            key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).hexdigest(),
        )
        tests = int(_TEST * len(members) + 0.5)
        checks = int(_VALIDATION * len(members) + 0.5)
        for index, patient in enumerate(members):
            result[patient] = "test" if index < tests else "validation" if index < tests + checks else "train"
    return result


def grouped(split: Mapping[str, Split]) -> dict[str, tuple[str, ...]]:
    """The patients of each part, sorted; a part may be empty.

    Example:
        >>> grouped({"L010": "train", "L004": "test", "L002": "train"})
        {'train': ('L002', 'L010'), 'validation': (), 'test': ('L004',)}
    """
    parts: tuple[Split, ...] = ("train", "validation", "test")
    return {part: tuple(sorted(p for p, own in split.items() if own == part)) for part in parts}


def body_mask(hu: NDArray[np.float32], threshold: float = -400.0) -> NDArray[np.bool_]:
    """The body, lungs and gas included: the largest dense piece with its holes filled.

    Arguments:
        hu: A slice (H, W), HU.
        threshold: What counts as dense, HU.

    Returns:
        Bool (H, W); all false where nothing is dense.
    """
    from scipy import ndimage

    # Filled before thin things such as the table go, else a thin chest wall would go too.
    filled = ndimage.binary_fill_holes(np.asarray(hu) > threshold)
    pieces, count = ndimage.label(ndimage.binary_opening(filled, iterations=2))
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    body: NDArray[np.bool_] = ndimage.binary_fill_holes(pieces == largest)
    return body


def region_of(hu: Image) -> str:
    """``chest`` where more than 15 % of the body is below -500 HU, else ``abdomen``."""
    body = body_mask(hu)
    return "chest" if body.any() and float((hu[body] < -500.0).mean()) > 0.15 else "abdomen"
