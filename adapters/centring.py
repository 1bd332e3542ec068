"""Whether an output that is smaller than its image lacks as much on either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import is_tensor, restore
from .errors import UnsupportedModelError

__all__ = ["check_centred"]

_STEPS = (1.0, -1.0, 0.3, -0.3, 10.0, -10.0)  # by how much the middle of an image is changed
_LEVELS = (0.0, 0.3, 1.0)  # of flat images
_FAR = 8  # pixels from the middle to each of two places
_SHARP = 30.0  # how far the end of a local answer stands out of what remains of global ones


def check_centred(
    read: Callable[[Any], Any], u: Any, name: str, notify: Callable[[str], None] | None = None
) -> bool:
    """Refuse an output that lacks more on one side than on the other: it would be laid over wrong pixels.

    What changes where the middle of the image does must lie around the middle of the output. Where a
    network sees from there to a border, only what changes most can tell, and only if it is as narrow and
    as strong as an image's own pixels are in it. What a network takes from the whole image is the same
    for a change at two places of a flat one: their difference shows the local part alone.

    Arguments:
        read: From one image in model units to the network's output, smaller by a few pixels.
        u: An image (1, C, H, W).
        name: What the network is called.
        notify: Called with a sentence where the images tell nothing.

    Returns:
        Whether the images told anything.

    Raises:
        UnsupportedModelError: The output lacks more at one end of an axis than at the other.
    """
    total = _answer_to_the_middle(read, u)
    told = True
    for axis, own in enumerate(total.shape):
        lost = u.shape[axis - 2] - own
        apart = _off_centre(total.max(axis=1 - axis))
        if lost and apart is None:
            apart = _off_centre_locally(read, u, axis)
        told = told and apart is not None
        if lost and apart is not None and 0.75 < abs(apart) <= lost / 2 + 0.25:
            raise UnsupportedModelError(
                f"{name!r} turns {u.shape[-2]}x{u.shape[-1]} pixels into {total.shape[0]}x{total.shape[1]} "
                "and lacks more of them on one side than on the other; crop the output alike on all sides"
            )
    if not told and notify is not None:
        notify(
            "whether the output lacks as many pixels on either side could not be verified, as each "
            "depends on the whole image; compare f(x) with x at an edge"
        )
    return told


def _answer_to_the_middle(read: Callable[[Any], Any], u: Any) -> np.ndarray:
    """How much each pixel (h, w) of the output changes with the pixels in the middle of the image."""
    row, column = u.shape[-2] // 2, u.shape[-1] // 2
    total: Any = 0.0
    rng = np.random.default_rng(0)
    # Other images and steps show what activations hide in one of them.
    for step in _STEPS:
        noise = rng.random((u.shape[-2], u.shape[-1]), dtype=np.float32)
        plain = u * 0.0 + _like(noise, u) if abs(step) < 5.0 else u
        total = total + _difference(read, _moved(plain, row, column, step), plain) / abs(step)
    answer: np.ndarray = total
    return answer


def _off_centre_locally(read: Callable[[Any], Any], u: Any, axis: int) -> float | None:
    """How far off a network answers to two places around the middle of an axis; None if unknown."""
    shift = [_FAR * (k == axis) for k in range(2)]
    (low, left), (high, right) = (
        (u.shape[-2] // 2 + sign * shift[0], u.shape[-1] // 2 + sign * shift[1]) for sign in (-1, 1)
    )
    total: Any = 0.0
    for level in _LEVELS:
        for step in _STEPS:
            flat = u * 0.0 + np.float32(level).item()
            one, other = _moved(flat, low, left, step), _moved(flat, high, right, step)
            total = total + _difference(read, one, other) / abs(step)
    profile = np.asarray(total).max(axis=1 - axis)
    rest = max(profile[:_FAR].max(), profile[-_FAR:].max(), 1e-7 * profile.max())
    places = np.flatnonzero(profile > 3.0 * rest)
    if not len(places) or min(profile[places[0]], profile[places[-1]]) < _SHARP * rest:
        return None  # what fades out may do so sooner on one side
    return float((places[0] + places[-1] + 1) / 2 - len(profile) / 2)


def _moved(u: Any, row: int, column: int, step: float) -> Any:
    """An image with four pixels changed around a corner of its grid."""
    moved = u + 0.0
    moved[..., row - 1 : row + 1, column - 1 : column + 1] += step
    return moved


def _difference(read: Callable[[Any], Any], one: Any, other: Any) -> np.ndarray:
    """Mean difference of two outputs over their channels, (h, w)."""
    a, b = (restore(read(image), np.empty(0)) for image in (one, other))
    return np.abs(a - b).mean(axis=(0, 1))


def _like(array: np.ndarray, u: Any) -> Any:
    """An array as the kind of the image ``u``."""
    return u.new_tensor(array) if is_tensor(u) else array


def _off_centre(response: np.ndarray) -> float | None:
    """How far from the middle of an axis a network answers to the middle of the image; None if unknown."""
    strong = np.flatnonzero(response > 0.5 * response.max(initial=0.0))
    # The pixels themselves, where the network returns them with some change: they tell best.
    if len(strong) == 2 and strong[1] - strong[0] == 1 and response.max() > 0.5 * len(_STEPS):
        rest = np.delete(response, strong)
        if rest.max(initial=0.0) < 0.2 * response.max():
            return float(strong.mean() + 0.5 - len(response) / 2)
    places = np.flatnonzero(response)
    if not len(places) or places[0] == 0 or places[-1] == len(response) - 1:
        return None
    return float((places[0] + places[-1] + 1) / 2 - len(response) / 2)
