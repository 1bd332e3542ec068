"""Random anatomical phantoms: chest and abdomen slices without noise, drawn from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .abdomen import draw_abdomen
from .canvas import Canvas, texture
from .thorax import draw_thorax
from .tissues import TISSUES, Lesion

__all__ = ["KINDS", "Kind", "Phantom", "phantom"]

Kind = Literal["thorax", "abdomen"]
KINDS: tuple[Kind, ...] = ("thorax", "abdomen")


@dataclass(frozen=True, eq=False)
class Phantom:
    """A made-up slice whose truth is known.

    Arguments:
        hu: Float32 (size, size), HU, free of noise.
        labels: Uint8 (size, size), tissue of each pixel, see
            :data:`~ctinv.invariance.data.phantoms.tissues.TISSUES`.
        lesions: What was inserted where.
        spacing: Row and column spacing in mm.
        kind: ``thorax`` or ``abdomen``.
    """

    hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    spacing: tuple[float, float]
    kind: Kind


def phantom(
    rng: np.random.Generator, size: int = 512, *, kind: Kind | None = None, lesions: int | None = None
) -> Phantom:
    """Draw one slice.

    Arguments:
        rng: Source of every choice; the same state gives the same slice.
        size: Pixels along each side; the field of view stays that of a body.
        kind: ``thorax`` or ``abdomen``; drawn where None.
        lesions: How many lesions to insert; drawn from 0 to 3 where None.

    Raises:
        ImageError: An unknown kind, or a size below 64.
    """
    if kind is not None and kind not in KINDS:
        raise ImageError(f"phantom kind {kind!r} is not known; choose one of: {', '.join(KINDS)}")
    if size < 64:
        raise ImageError(f"a phantom of {size} pixels is too small; give 64 or more")
    chosen = kind if kind is not None else KINDS[int(rng.integers(2))]
    count = int(rng.integers(4)) if lesions is None else lesions
    half_width = float(rng.uniform(150.0, 195.0))
    spacing = 2.0 * half_width * float(rng.uniform(1.02, 1.3)) / size
    canvas = Canvas(size, spacing, rng)
    placed = (draw_thorax if chosen == "thorax" else draw_abdomen)(canvas, half_width, count)
    _grain(canvas)
    _blur(canvas)
    return Phantom(canvas.hu, canvas.labels, tuple(placed), (spacing, spacing), chosen)


def _grain(canvas: Canvas) -> None:
    """Texture inside tissues: parenchyma, strands in fat, lung and spongy bone."""
    rng, size, spacing = canvas.rng, canvas.size, canvas.spacing
    fine = texture(rng, size, spacing, 3.0, 3.0)
    broad = texture(rng, size, spacing, 14.0, 3.2)
    strands = 1.0 - np.abs(texture(rng, size, spacing, 12.0, 3.6)) * np.float32(6.0)
    strands = np.clip(strands, 0.0, 1.0)
    names = list(TISSUES)
    weights = np.zeros((3, len(names)), dtype=np.float32)
    for index, name in enumerate(names):
        weights[:, index] = TISSUES[name].grain
    table = weights[:, canvas.labels]
    canvas.hu += table[0] * fine + table[1] * broad + table[2] * strands


def _blur(canvas: Canvas) -> None:
    from scipy.ndimage import gaussian_filter

    sigma = float(canvas.rng.uniform(0.50, 0.90)) / canvas.spacing  # mm: sharp to smooth body kernels
    canvas.hu = np.maximum(gaussian_filter(canvas.hu, sigma, truncate=3.0), -1024.0).astype(np.float32)
