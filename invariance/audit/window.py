"""A layer's Jacobian for changes inside a square of the image, by its products alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.errors import ImageError
from ctinv.invariance.observer import Linearised
from torch import Tensor

__all__ = ["Window", "window"]

Image = npt.NDArray[np.float32]
Linearise = Callable[[Tensor], Linearised]

_ALIGN = 8  # strided layers must see the crop on their own grid


class Window:
    """``J P``: the Jacobian at a slice, restricted to changes inside a square.

    A change is a row of ``size * size`` numbers in HU. Several are handled at a time.

    Arguments:
        linearise: Images (N, 1, H, W) in HU to the Jacobian there, such as
            :meth:`ctinv.invariance.observer.Observer.linearise`.
        x: The slice (H, W), HU.
        corner: First row and column of the square.
        size: Its side in pixels.
        margin: The layer is shown the square and this many pixels around it; all of the slice where
            None.

    Raises:
        ImageError: The square does not lie within the slice.

    Example:
        >>> triple = lambda image: Linearised(lambda x: 3 * x, image)
        >>> look = Window(triple, np.zeros((8, 8), np.float32), (2, 2), 2)
        >>> look.gram(torch.eye(4)).diagonal().tolist()
        [9.0, 9.0, 9.0, 9.0]
    """

    def __init__(
        self,
        linearise: Linearise,
        x: Image,
        corner: tuple[int, int],
        size: int,
        *,
        margin: int | None = None,
    ) -> None:
        if size < 1 or any(c < 0 or c + size > side for c, side in zip(corner, x.shape, strict=True)):
            raise ImageError(
                f"a square of {size} pixels at {corner} does not lie within a slice of {x.shape}; "
                "give another corner or size"
            )
        self.corner, self.size = corner, size
        shown, inner = [], []
        for start, side in zip(corner, x.shape, strict=True):
            low, high = 0, side
            if margin is not None:
                low = max(0, (start - margin) // _ALIGN * _ALIGN)
                high = min(side, -(-(start + size + margin) // _ALIGN) * _ALIGN)
            shown.append(slice(low, high))
            inner.append(slice(start - low, start - low + size))
        self._rows, self._columns = inner
        self._x = torch.from_numpy(np.ascontiguousarray(x[tuple(shown)], dtype=np.float32))[None, None]
        self._linearise = linearise
        self._known: tuple[int, Linearised] | None = None

    @property
    def unknowns(self) -> int:
        """Directions in which the square can change."""
        return self.size**2

    def cut(self, changes: Image) -> Tensor:
        """The part inside the square of image changes (K, H, W) in HU: (K, unknowns)."""
        row, column = self.corner
        inside = changes[:, row : row + self.size, column : column + self.size]
        return torch.from_numpy(np.ascontiguousarray(inside, dtype=np.float32)).flatten(1)

    def _jacobian(self, count: int) -> Linearised:
        if self._known is None or self._known[0] != count:
            self._known = count, self._linearise(self._x.expand(count, -1, -1, -1).contiguous())
        return self._known[1]

    def _embed(self, changes: Tensor) -> Tensor:
        images = self._x.new_zeros((len(changes), *self._x.shape[1:]))
        images[..., self._rows, self._columns] = changes.unflatten(1, (1, self.size, self.size))
        return images

    def seen(self, changes: Tensor) -> Tensor:
        """``J P d`` of changes (N, unknowns), HU: how the layer's output moves, (N, outputs)."""
        return self._jacobian(len(changes)).forward(self._embed(changes)).flatten(1)

    def gram(self, changes: Tensor) -> Tensor:
        """``P J^T J P d`` of changes (N, unknowns), HU."""
        jacobian = self._jacobian(len(changes))
        back = jacobian.adjoint(jacobian.forward(self._embed(changes)))
        return back[..., self._rows, self._columns].flatten(1)

    def matrix(self, batch: int = 64) -> npt.NDArray[np.float64]:
        """``P J^T J P`` written out, (unknowns, unknowns): for small squares, one product a column."""
        units = torch.eye(self.unknowns)
        whole = torch.cat([self.gram(units[k : k + batch]) for k in range(0, len(units), batch)])
        dense = whole.double().numpy()
        half: npt.NDArray[np.float64] = (dense + dense.T) / 2
        return half


def window(
    linearise: Linearise, x: Image, corner: tuple[int, int], size: int, *, margin: int = 32, seed: int = 0
) -> Window:
    """A window that shows the layer no more of the slice than it needs.

    One random change is sent through the surroundings and through the whole slice; where the two
    disagree by 0.1 % (wide receptive fields, blindness bound to places), the whole slice is kept.

    Arguments:
        linearise: As for :class:`Window`.
        x: The slice (H, W), HU.
        corner: First row and column of the square.
        size: Its side in pixels.
        margin: Pixels around the square to try.
        seed: Draws the change.

    Raises:
        ImageError: The square does not lie within the slice.
    """
    near = Window(linearise, x, corner, size, margin=margin)
    whole = Window(linearise, x, corner, size)
    if near._x.shape == whole._x.shape:
        return whole
    probe = torch.randn((1, size**2), generator=torch.Generator().manual_seed(seed))
    exact = whole.gram(probe)
    apart = (near.gram(probe) - exact).norm()
    return near if bool(apart <= 1e-3 * exact.norm()) else whole
