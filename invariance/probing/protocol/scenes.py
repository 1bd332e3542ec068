"""Where a protocol's images come from: noise, dose by dose, on a known background."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.phantoms.phantom import phantom
from ctinv.invariance.data.simulation.dose import REFERENCE_FLUENCE, noise_realisations
from ctinv.invariance.data.simulation.noise import noise_level, noise_like
from ctinv.invariance.infra.randomness import Purpose, rng
from scipy.ndimage import binary_erosion, gaussian_filter

__all__ = ["Anatomy", "Scene", "SliceScene", "Uniform", "cut"]

_PORTION = 8  # noise images of one stream of random numbers
_NOISE = 12.0  # HU at dose 1, about that of a routine body slice of 1 to 2 mm
_SOFT = (0.0, 180.0)


class Scene(Protocol):
    """A background at some doses, seen in squares with a lesion's place in their middle."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    @property
    def spacing(self) -> tuple[float, float]:
        """Row and column spacing, mm."""
        ...

    def squares(self, dose: float, side: int, count: int, seed: int) -> Iterator[Image]:
        """Squares (n, side, side), HU, with background and noise; ``count`` in all.

        What is drawn depends on dose, side and seed, and the first ones not on ``count``.
        """
        ...


def cut(images: Image, places: Sequence[tuple[int, int]], side: int) -> Image:
    """Squares around places (column, row) of images (N, H, W), (N x places, side, side).

    The middle pixel of a square is ``side // 2``.
    """
    half = side // 2
    parts = [
        images[:, row - half : row - half + side, column - half : column - half + side]
        for column, row in places
    ]
    return np.ascontiguousarray(np.stack(parts, 1).reshape(-1, side, side))


@dataclass(frozen=True)
class Uniform:
    """A cylinder of soft tissue, 200 mm wide; places lie on a ring, where the noise is alike.

    Arguments:
        noise: Standard deviation of the fine part of the noise at dose 1, HU.
        pixels: Pixels along each side.
        spacing: Row and column spacing, mm.
        hu: Of the tissue.
    """

    noise: float = _NOISE
    pixels: int = 256
    spacing: tuple[float, float] = (0.85, 0.85)
    hu: float = 50.0

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"uniform cylinder of 200 mm, {self.hu:g} HU, {self.noise:g} HU of noise at dose 1"

    @cached_property
    def truth(self) -> Image:
        """The cylinder without noise, (pixels, pixels), HU."""
        rows, columns = np.indices((self.pixels, self.pixels)) - self.pixels // 2
        radius = np.hypot(rows * self.spacing[0], columns * self.spacing[1])
        edge = np.clip((100.0 - radius) / self.spacing[0] + 0.5, 0, 1)
        return np.asarray(-1000 + (1000 + self.hu) * edge, dtype=np.float32)

    @cached_property
    def fluence(self) -> float:
        """Photons at dose 1 that give the noise asked for."""
        drawn = noise_realisations(
            self.truth, self.spacing, 1.0, 2, rng(0, Purpose.PROTOCOL_NOISE, 0), input_dose=math.inf
        )
        noise = float(np.mean([noise_level(one) for one in drawn]))
        return REFERENCE_FLUENCE * (noise / self.noise) ** 2

    def places(self, side: int) -> list[tuple[int, int]]:
        """As many places on a ring of 50 mm as squares of that side have room beside each other."""
        ring = 50.0 / max(self.spacing)
        count = max(1, int(math.pi / math.asin(min(1.0, side / (2 * ring)))))
        middle = self.pixels // 2
        angles = 2 * math.pi * (np.arange(count) + 0.5) / count
        return [
            (middle + round(ring * math.cos(a)), middle + round(ring * math.sin(a))) for a in angles.tolist()
        ]

    def squares(self, dose: float, side: int, count: int, seed: int) -> Iterator[Image]:
        """See :class:`Scene`."""
        places, left, portion = self.places(side), count, 0
        while left > 0:
            draws = rng(seed, Purpose.PROTOCOL_NOISE, _key(dose), portion)
            images = noise_realisations(
                self.truth,
                self.spacing,
                dose,
                _PORTION,
                draws,
                input_dose=math.inf,
                reference_fluence=self.fluence,
            )
            squares = cut(np.stack(list(images)), places, side)[:left]
            left, portion = left - len(squares), portion + 1
            yield squares


@dataclass(frozen=True)
class Anatomy:
    """Made-up abdomens; places are drawn from all soft tissue, vessels and edges of organs included.

    Arguments:
        noise: Standard deviation of the fine part of the noise at dose 1, HU.
        phantoms: How many bodies.
        each: Places in one noise image.
    """

    noise: float = _NOISE
    phantoms: int = 8
    each: int = 16

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.phantoms} made-up abdomens, {self.noise:g} HU of noise at dose 1"

    @property
    def spacing(self) -> tuple[float, float]:
        """Row and column spacing, mm."""
        return (0.85, 0.85)

    def squares(self, dose: float, side: int, count: int, seed: int) -> Iterator[Image]:
        """See :class:`Scene`."""
        left, portion = count, 0
        while left > 0:
            body = _abdomen(seed, portion % self.phantoms)
            places = soft_places(body, side, self.each, rng(seed, Purpose.PROTOCOL_PLACES, portion))
            draws = rng(seed, Purpose.PROTOCOL_NOISE, _key(dose), portion)
            (noisy,) = noise_realisations(body, self.spacing, dose, 1, draws, input_dose=math.inf)
            noise = noisy - body
            factor = self.noise / math.sqrt(dose) / noise_level(noise)
            image = (body + noise * np.float32(factor))[None]
            squares = cut(image, places, side)[:left]
            left, portion = left - len(squares), portion + 1
            yield squares


@dataclass(frozen=True, eq=False)
class SliceScene:
    """A slice of the user's at one place, with more noise of its own kind; its own stays in the background.

    Arguments:
        x: The slice (H, W), HU.
        at: Column and row of the place.
        spacing: Row and column spacing, mm.
        source: What the slice is called.
    """

    x: Image
    at: tuple[int, int]
    spacing: tuple[float, float]
    source: str = "array"

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"{self.source}, column {self.at[0]}, row {self.at[1]}, {noise_level(self.x):.1f} HU of noise"

    @property
    def room(self) -> int:
        """Side of the largest square around the place, pixels."""
        column, row = self.at
        height, width = self.x.shape
        return 2 * min(column, row, height - row, width - column)

    def squares(self, dose: float, side: int, count: int, seed: int) -> Iterator[Image]:
        """See :class:`Scene`."""
        if side > self.room:
            raise ImageError(
                f"column {self.at[0]}, row {self.at[1]} has no {side // 2} pixels of slice "
                "around it; name a place further in, or give a larger slice"
            )
        left, portion = count, 0
        while left > 0:
            draws = rng(seed, Purpose.PROTOCOL_NOISE, _key(dose), portion)
            noise = noise_like(self.x, min(_PORTION, left), draws, self.spacing) / np.float32(math.sqrt(dose))
            squares = cut(self.x + noise, [self.at], side)
            left, portion = left - len(squares), portion + 1
            yield squares


@lru_cache(maxsize=8)
def _abdomen(seed: int, number: int) -> Image:
    """A body without lesions or noise, (448, 448), HU."""
    return phantom(rng(seed, Purpose.PHANTOM, number), 448, kind="abdomen", lesions=0).hu


def soft_places(hu: Image, side: int, count: int, draws: np.random.Generator) -> list[tuple[int, int]]:
    """Places (column, row) in soft tissue, drawn at random, with room for squares of that side.

    Raises:
        ImageError: There are none.
    """
    smooth = gaussian_filter(hu, 2.0)
    soft = binary_erosion((smooth > _SOFT[0]) & (smooth < _SOFT[1]), iterations=4)
    half = side // 2
    soft[:half] = soft[hu.shape[0] - (side - half) :] = False
    soft[:, :half] = soft[:, hu.shape[1] - (side - half) :] = False
    rows, columns = np.nonzero(soft)
    if not len(rows):
        raise ImageError(f"no soft tissue has {half} pixels of slice around it; give a larger slice")
    chosen = draws.integers(len(rows), size=count)
    return [(int(columns[i]), int(rows[i])) for i in chosen]


def _key(dose: float) -> int:
    return round(dose * 10**6)
