"""Image sizes: what a network crops at its border, and the multiples that it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .arrays import pad_reflect
from .errors import ImageError, ModelError, UnsupportedModelError

__all__ = ["Geometry", "LeastSize", "OneSize", "ramp"]

# The smallest image on which most networks run, then sizes that networks of one size are made for.
_PROBE = 64
_SIZES = (33, 48, 55, 64, 80, 96, 100, 128, 144, 192, 224, 256, 320, 384, 448, 512)
# Powers of two, then other windows and patches.
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 7, 14, 28, 56, 5, 10, 20, 40, 80, 96, 112, 128)


def ramp(height: int, width: int) -> np.ndarray:
    """A probe image (1, 1, H, W) that rises from 0 to 1 and is the same everywhere it is made."""
    rows = np.linspace(0.0, 1.0, height)[:, None] + np.linspace(0.0, 1.0, width)[None, :]
    return (0.5 * rows)[None, None].astype(np.float32)


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
            pads = super()._find(u, size)
        except ModelError:
            self._tile(None)
            raise
        self._tiled = True
        self._notify(
            f"the network takes images of {least[0]}x{least[1]} pixels only; larger ones are run in "
            "overlapping tiles"
        )
        return pads
