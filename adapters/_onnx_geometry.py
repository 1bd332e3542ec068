"""Image sizes of a model that fixes one size, where larger images are run in tiles."""

from __future__ import annotations

from typing import Any

from ._geometry import Geometry

__all__ = ["LeastSize"]


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
