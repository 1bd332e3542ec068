"""Image sizes: what a network crops at its border, and the multiples that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .arrays import is_tensor, pad_reflect, restore
from .errors import ImageError, ModelError, UnsupportedModelError

__all__ = ["Geometry", "LeastSize", "OneSize", "check_centred", "ramp"]

# The smallest image on which most networks run, then sizes that networks of one size are made for.
_PROBE = 64
_SIZES = (33, 48, 55, 64, 80, 96, 100, 128, 144, 192, 224, 256, 320, 384, 448, 512)
_STEPS = (1.0, -1.0, 0.3, -0.3, 10.0, -10.0)  # by how much the middle of an image is changed
# Powers of two, then other windows and patches.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 7, 14, 28, 56, 5, 10, 20, 40, 80, 96, 112, 128)


def ramp(height: int, width: int) -> np.ndarray:
    """A probe image (1, 1, H, W) that rises from 0 to 1 and is the same everywhere it is made."""
    rows = np.linspace(0.0, 1.0, height)[:, None] + np.linspace(0.0, 1.0, width)[None, :]
    return (0.5 * rows)[None, None].astype(np.float32)


def check_centred(read: Callable[[Any], Any], u: Any, name: str) -> bool:
    """Refuse an output that lacks more on one side than on the other: it would be laid over wrong pixels.

    What changes where the middle of the image does must lie around the middle of the output. Where a
    network sees from there to a border, only what changes most can tell, and only if it is as narrow and
    as strong as an image's own pixels are in it.

    Arguments:
        read: From one image in model units to the network's output, smaller by a few pixels.
        u: An image (1, C, H, W).
        name: What the network is called.

    Returns:
        Whether the image told anything.

    Raises:
        UnsupportedModelError: The output lacks more at one end of an axis than at the other.
    """
    row, column = u.shape[-2] // 2, u.shape[-1] // 2
    total: np.ndarray | None = None
    rng = np.random.default_rng(0)
    # Other images and steps show what activations hide in one of them.
    for step in _STEPS:
        noise = rng.random((u.shape[-2], u.shape[-1]), dtype=np.float32)
        plain = u * 0.0 + _like(noise, u) if abs(step) < 5.0 else u
        moved = plain + 0.0
        moved[..., row - 1 : row + 1, column - 1 : column + 1] += step
        a, b = (restore(read(image), np.empty(0)) for image in (moved, plain))
        change = np.abs(a - b).mean(axis=(0, 1)) / abs(step)
        total = change if total is None else total + change
    assert total is not None
    told = True
    for axis, own in enumerate(total.shape):
        lost = u.shape[axis - 2] - own
        apart = _off_centre(total.max(axis=1 - axis))
        told = told and apart is not None
        if lost and apart is not None and 0.75 < abs(apart) <= lost / 2 + 0.25:
            raise UnsupportedModelError(
                f"{name!r} turns {u.shape[-2]}x{u.shape[-1]} pixels into {total.shape[0]}x{total.shape[1]} "
                "and lacks more of them on one side than on the other; crop the output alike on all sides"
            )
    return told


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


class Geometry:
    """How the size of a network's output follows from the size of its input, found by probing.

    Arguments:
        run: From one image in model units (1, C, H, W) to the shape of the network's output.
        blank: From height and width to a probe image for ``run``.
        fixed_size: The only height and width the model takes, None where it is free.
        notify: Called with a sentence about what was found.
    """

    def __init__(
        self,
        run: Callable[[Any], tuple[int, ...]],
        blank: Callable[[int, int], Any],
        fixed_size: tuple[int | None, int | None] | None,
        notify: Callable[[str], None],
    ) -> None:
        self._run = run
        self._blank = blank
        self._fixed = fixed_size or (None, None)
        self._notify = notify
        self._probe: tuple[int, int] | None = None
        self._given: tuple[int, int] | None = None
        self._crop = 0
        self._pads: dict[tuple[int, int], tuple[int, int]] = {}

    def given(self, size: Sequence[int]) -> None:
        """Tell the size of an image that is to be run: it is tried where the smallest does not run."""
        if self._probe is None:
            self._given = (int(size[0]), int(size[1]))

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of the smallest probe image that the network accepts."""
        self._look()
        assert self._probe is not None
        return self._probe

    @property
    def crop(self) -> int:
        """Pixels that the output lacks on each side: what convolutions without padding take."""
        self._look()
        return self._crop

    @property
    def fixed(self) -> tuple[int | None, int | None]:
        """The height and width that the model prescribes."""
        return self._fixed

    def pads(self, u: Any) -> tuple[int, int]:
        """Rows and columns to mirror below and right of ``u`` so that the network takes it.

        Arguments:
            u: Images in model units (N, C, H, W); only the first is ever tried.

        Raises:
            ImageError: The model takes one size only, and it is another.
            ModelError: No padding up to multiples of 128 helps; the network's own error is told.
        """
        size = (int(u.shape[-2]), int(u.shape[-1]))
        if size not in self._pads:
            self._pads[size] = self._find(u[:1], size)
        return self._pads[size]

    def _look(self) -> None:
        if self._probe is not None:
            return
        failure: ModelError | None = None
        for height, width in self._probes():
            try:
                shape = self._run(self._blank(height, width))
            except UnsupportedModelError:
                raise
            except ModelError as error:
                failure = failure or error
                continue
            self._crop = self._crop_of((height, width), shape)
            self._probe = (height, width)
            return
        assert failure is not None
        raise failure

    def _probes(self) -> Iterable[tuple[int, int]]:
        squares = [(size, size) for size in _SIZES]
        wanted = [(_PROBE, _PROBE), *([self._given] if self._given else []), *squares]
        return dict.fromkeys((self._fixed[0] or height, self._fixed[1] or width) for height, width in wanted)

    def _crop_of(self, size: tuple[int, int], shape: tuple[int, ...]) -> int:
        lost = (size[0] - shape[-2], size[1] - shape[-1])
        if lost[0] != lost[1] or lost[0] % 2 or lost[0] < 0 or not self._is_crop(size, lost[0]):
            raise UnsupportedModelError(
                f"the network turns {size[0]}x{size[1]} pixels into {shape[-2]}x{shape[-1]}; an output must "
                "have the input's size, or lack the same number of pixels on all four sides; where the "
                "network returns images of several sizes, output_tensor= chooses one"
            )
        if lost[0]:
            self._notify(f"the network has no padding: its output lacks {lost[0] // 2} pixels on each side")
        return lost[0] // 2

    def _is_crop(self, size: tuple[int, int], lost: int) -> bool:
        """Whether an output that is smaller is so by as much at another size, and not a smaller image."""
        if not lost or lost < 0:
            return True
        for step in (32, 64, size[0]):
            larger = tuple(own if fixed else own + step for own, fixed in zip(size, self._fixed, strict=True))
            if larger == size:
                break
            try:
                shape = self._run(self._blank(*larger))
            except ModelError:
                continue
            return (larger[0] - shape[-2], larger[1] - shape[-1]) == (lost, lost)
        # One size only: a border is narrow, a smaller image is at most half as wide.
        return 2 * lost < min(size)

    def _find(self, u: Any, size: tuple[int, int]) -> tuple[int, int]:
        if any(fixed not in (None, own) for fixed, own in zip(self._fixed, size, strict=True)):
            takes = "x".join(str(fixed or "any") for fixed in self._fixed)
            raise ImageError(
                f"the model takes images of {takes} pixels only, not {size[0]}x{size[1]}; crop them"
            )
        crop = self.crop
        failure: ModelError | None = None
        tried = set()
        for multiple in _MULTIPLES:
            pads = (-size[0] % multiple, -size[1] % multiple)
            if pads in tried or pads[0] >= size[0] or pads[1] >= size[1]:
                continue
            tried.add(pads)
            try:
                shape = self._run(pad_reflect(u, *pads))
            except UnsupportedModelError:
                raise
            except ModelError as error:
                failure = failure or error
                continue
            if shape[-2:] == (size[0] + pads[0] - 2 * crop, size[1] + pads[1] - 2 * crop):
                if any(pads):
                    self._notify(
                        f"{size[0]}x{size[1]} pixels do not fit the network; images are mirrored below and "
                        f"at the right to multiples of {multiple}, and the output is cropped back"
                    )
                return pads
        raise failure or ModelError(
            f"images of {size[0]}x{size[1]} pixels come out with another size, also when mirrored to "
            f"multiples of {_MULTIPLES[-1]}; give images like {self.probe_size[0]}x{self.probe_size[1]}"
        )


class LeastSize(Geometry):
    """Takes the fixed size and, in tiles, larger ones; refuses smaller ones."""

    def _find(self, u: Any, size: tuple[int, int]) -> tuple[int, int]:
        larger = all(own >= (fixed or 0) for fixed, own in zip(self._fixed, size, strict=True))
        if not larger or size == self._fixed:
            return super()._find(u, size)
        self._look()  # while the size is still fixed
        fixed, self._fixed = self._fixed, (None, None)
        try:
            return super()._find(u, size)
        finally:
            self._fixed = fixed


class OneSize(Geometry):
    """Where images fit in no way, larger ones are run in tiles of the size with which layers are listed.

    Arguments:
        run: As for :class:`Geometry`.
        blank: As for :class:`Geometry`.
        tile: Called with a height and width: run other sizes in tiles of this one; with None: no longer.
        notify: Called with a sentence about what was found.
    """

    def __init__(
        self,
        run: Callable[[Any], tuple[int, ...]],
        blank: Callable[[int, int], Any],
        tile: Callable[[tuple[int, int] | None], None],
        notify: Callable[[str], None],
    ) -> None:
        super().__init__(run, blank, None, notify)
        self._tile = tile
        self._tiled = False

    def _find(self, u: Any, size: tuple[int, int]) -> tuple[int, int]:
        try:
            return super()._find(u, size)
        except UnsupportedModelError:
            raise
        except ModelError:
            least = self.probe_size
            if self._tiled or self.crop or size[0] < least[0] or size[1] < least[1] or size == least:
                raise
        self._tile(least)
        try:
            found = super()._find(u, size)
        except ModelError:
            self._tile(None)
            raise
        self._tiled = True
        self._notify(
            f"the network takes images of {least[0]}x{least[1]} pixels only; larger ones are run in "
            "overlapping tiles"
        )
        return found
