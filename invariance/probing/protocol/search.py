"""Finding the discs of a scanned phantom, and places beside them where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ctinv.adapters._types import Image
from numpy.typing import NDArray

__all__ = ["Insert", "empty_places", "find_inserts", "find_inserts_alone", "phantom_body"]

_STANDS_OUT = 6.0  # response of a disc, in standard deviations of what chance responds
_WIDTHS = (1.5, 12.0, 13)  # pixels: of the Gaussians, least, largest and how many
_NOISE_SCANS = 6  # scans from which the response to noise is told
_AIR = -300.0  # HU
_RIM = 8.0  # mm at the phantom's edge in which no disc is looked for
_ORDER = 4  # of the polynomial that the phantom without discs is taken for
_OUTLIER = 2.5  # robust standard deviations from which a pixel does not count for it
_ROUNDS = 6
_RING = 4.0  # mm by which an empty place may lie further in or out than the disc
_APART = 3.0  # mm between discs and empty places


@dataclass(frozen=True)
class Insert:
    """A disc in a phantom.

    Arguments:
        at: Column and row of its middle.
        diameter: In mm.
        contrast: HU above the background.
    """

    at: tuple[int, int]
    diameter: float
    contrast: float


def find_inserts(absent: Image, present: Image, spacing: tuple[float, float]) -> tuple[Insert, ...]:
    """Find discs in the difference of two means, strongest first.

    Arguments:
        absent: Images without inserts, (n, H, W), HU.
        present: Images with them, (m, H, W).
        spacing: Row and column spacing, mm.
    """
    change = present.mean(0, dtype=np.float64) - absent.mean(0, dtype=np.float64)
    return _discs(change, (absent, present), spacing, np.ones(change.shape, dtype=bool))


def find_inserts_alone(present: Image, spacing: tuple[float, float]) -> tuple[Insert, ...]:
    """Find discs in the mean of scans with discs, where there are none without, strongest first.

    The phantom without discs is taken for a smooth surface, which follows cupping and shading.

    Arguments:
        present: Images with inserts, (n, H, W), HU.
        spacing: Row and column spacing, mm.
    """
    mean = present.mean(0, dtype=np.float64)
    body = phantom_body(mean, spacing)
    if not body.any():
        return ()
    return _discs(np.where(body, mean - _surface(mean, body), 0.0), (present,), spacing, body)


def phantom_body(image: NDArray[np.float64], spacing: tuple[float, float]) -> NDArray[np.bool_]:
    """The inside of the phantom (H, W), without its rim.

    Arguments:
        image: (H, W), HU.
        spacing: Row and column spacing, mm.
    """
    from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, label

    solid, count = label(binary_fill_holes(gaussian_filter(image, 1.5) > _AIR))
    if not count:
        return np.zeros(image.shape, dtype=bool)
    largest = solid == 1 + np.bincount(solid.ravel())[1:].argmax()
    if largest.all():  # a cut-out: nothing tells where the phantom ends
        return np.ones(image.shape, dtype=bool)
    return np.asarray(distance_transform_edt(largest, sampling=spacing) > _RIM)


def _surface(image: NDArray[np.float64], body: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A polynomial over the body, blind to what stands out of it."""
    rows, columns = (np.linspace(-1, 1, n) for n in image.shape)
    powers = [(i, j) for i in range(_ORDER + 1) for j in range(_ORDER + 1 - i)]
    terms = np.stack([np.outer(rows**i, columns**j) for i, j in powers], -1)
    used = body.copy()
    fitted = np.zeros_like(image)
    for _ in range(_ROUNDS):
        weights, *_ = np.linalg.lstsq(terms[used], image[used], rcond=None)
        fitted = terms @ weights
        left = image - fitted
        spread = 1.4826 * float(np.median(np.abs(left[used])))
        used = body & (np.abs(left) <= _OUTLIER * max(spread, 1e-6))
    return fitted


def _discs(
    change: NDArray[np.float64],
    scans: Sequence[Image],
    spacing: tuple[float, float],
    body: NDArray[np.bool_],
) -> tuple[Insert, ...]:
    """Discs of a map without background, (H, W), HU, that was made of means of scans.

    A disc is where the Laplacian of a Gaussian has its largest response over place and width. What chance
    responds is told by the scans, at each width, whatever the colour of their noise.

    Source: T. Lindeberg, "Feature detection with automatic scale selection", International Journal of
    Computer Vision 30, 1998, https://doi.org/10.1023/A:1008045108935
    """
    from skimage.feature import peak_local_max

    widths = np.geomspace(*_WIDTHS)
    stack = np.stack([_response(change, width) for width in widths])
    errors = np.array([_chance(scans, width, body) for width in widths])
    ratio = stack / np.maximum(errors, 1e-12)[:, None, None]
    discs: list[tuple[float, Insert]] = []
    for sign in (1, -1):
        clear = np.where((sign * ratio >= _STANDS_OUT) & body, sign * stack, 0.0)
        for level, row, column in peak_local_max(clear, min_distance=1, exclude_border=False):
            radius = float(widths[level]) * np.sqrt(2)
            contrast = _contrast(change, (column, row), radius, body)
            # A disc responds with 0.74 of its contrast; beside a strong one something responds without any.
            if sign * contrast >= 0.5 * clear[level, row, column]:
                diameter = 2 * radius * float(np.mean(spacing))
                one = Insert((int(column), int(row)), diameter, contrast)
                discs.append((float(sign * ratio[level, row, column]), one))
    chosen: list[Insert] = []
    for _, one in sorted(discs, key=lambda pair: -pair[0]):
        gaps = [np.hypot(one.at[0] - c.at[0], one.at[1] - c.at[1]) for c in chosen]
        wide = [max(one.diameter, c.diameter) / float(np.mean(spacing)) for c in chosen]
        if all(gap > width for gap, width in zip(gaps, wide, strict=True)):
            chosen.append(one)
    return tuple(chosen)


def _response(image: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_laplace

    return np.asarray(-(width**2) * gaussian_laplace(image, width))


def _chance(scans: Sequence[Image], width: float, body: NDArray[np.bool_]) -> float:
    """Standard deviation of the response to the noise of the means."""
    variance = 0.0
    for stack in scans:
        mean = stack.mean(0, dtype=np.float64)
        spreads = [_response(one - mean, width)[body].var() for one in stack[:_NOISE_SCANS]]
        variance += float(np.mean(spreads)) / (len(stack) - 1)
    return float(np.sqrt(variance))


def _contrast(
    change: NDArray[np.float64], at: tuple[int, int], radius: float, body: NDArray[np.bool_]
) -> float:
    """Inside less around, HU; 0 where there is nothing around."""
    rows, columns = np.indices(change.shape)
    distance = np.hypot(rows - at[1], columns - at[0])
    inner = (distance <= max(1.5, 0.6 * radius)) & body
    around = (distance > 1.5 * radius) & (distance < 2.5 * radius) & body
    return float(change[inner].mean() - np.median(change[around])) if around.any() else 0.0


def empty_places(
    insert: Insert,
    inserts: Sequence[Insert],
    body: NDArray[np.bool_],
    spacing: tuple[float, float],
    side: int,
    count: int,
) -> list[tuple[int, int]]:
    """Places (column, row) beside the discs, as far from the phantom's middle as one: noise is alike there.

    Arguments:
        insert: That disc.
        inserts: All discs.
        body: Inside of the phantom, (H, W).
        spacing: Row and column spacing, mm.
        side: Of the squares that are cut around them, pixels.
        count: How many at most.
    """
    grid = np.indices(body.shape).astype(np.float64)
    rows, columns = grid[0], grid[1]

    def away(at: tuple[float, float]) -> NDArray[np.float64]:
        return np.hypot((rows - at[1]) * spacing[0], (columns - at[0]) * spacing[1])

    free = body.copy()
    half = side // 2
    free[:half] = free[body.shape[0] - (side - half) + 1 :] = False
    free[:, :half] = free[:, body.shape[1] - (side - half) + 1 :] = False
    room = np.full(body.shape, np.inf)
    for other in inserts:
        room = np.minimum(room, away(other.at) - (other.diameter + insert.diameter) / 2 - _APART)
    free &= room >= 0
    middle = (float(columns[body].mean()), float(rows[body].mean()))
    radius: NDArray[np.float64] = away(middle)
    ring = free & (np.abs(radius - radius[insert.at[1]][insert.at[0]]) <= _RING)
    left = ring if ring.any() else free
    chosen: list[tuple[int, int]] = []
    while left.any() and len(chosen) < count:
        best: int = int(np.where(left, room, -1.0).ravel().argmax())
        chosen.append((best % body.shape[1], best // body.shape[1]))
        left = left & (away(chosen[-1]) >= insert.diameter + _APART)
    return chosen
