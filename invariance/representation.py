"""``z = Phi(x)`` of whole slices, cut into the parts that belong to a patch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from torch import Tensor

from .embed import as_map, coordinates

__all__ = ["Geometry", "RepresentationStore", "probe_geometry", "represent"]

_MOST_BYTES = 1.5e9

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def represent(denoiser: Denoiser, layer: str, x: Image) -> Tensor:
    """``Phi(x)`` of images (N, 1, H, W) in HU, as a tensor on the CPU."""
    return torch.as_tensor(denoiser.features(np.ascontiguousarray(x), layer)).cpu()


@dataclass(frozen=True)
class Geometry:
    """Where the part of a layer's output lies that belongs to a patch of the image.

    Arguments:
        local: Whether the output is a map laid over the image. If not (vectors, odd token
            counts), the layer is shown each patch on its own.
        scale: Map pixels per image pixel.
        offset: Map position (row, column) of the image's corner; negative for layers whose
            output is smaller than the image all around.
        channels: Channels of the representation.
        size: Height and width of the part for one patch.
    """

    local: bool
    scale: float
    offset: tuple[int, int]
    channels: int
    size: tuple[int, int]

    def cut(self, z: Tensor, row: int, column: int) -> Tensor:
        """The part (C, h, w) of a map (C, H, W) for the patch at an image position."""
        height, width = self.size
        top = round(row * self.scale) + self.offset[0]
        left = round(column * self.scale) + self.offset[1]
        if top >= 0 and left >= 0 and top + height <= z.shape[1] and left + width <= z.shape[2]:
            return z[:, top : top + height, left : left + width]
        rows = torch.arange(top, top + height, device=z.device).clamp(0, z.shape[1] - 1)
        columns = torch.arange(left, left + width, device=z.device).clamp(0, z.shape[2] - 1)
        return z[:, rows][:, :, columns]


def probe_geometry(z: Tensor, shape: tuple[int, int], patch: int) -> Geometry:
    """Tell from one representation how it lies over its image.

    Arguments:
        z: ``Phi(x)`` of one image, (1, ...).
        shape: Height and width of that image.
        patch: Side of the patches.
    """
    channels, height, width = as_map(z).shape[1:]
    scales = {2.0 ** round(np.log2(max(h, 1) / s)) for h, s in zip((height, width), shape, strict=True)}
    scale = scales.pop()
    # Coarser than 1/8 (one map pixel per tile step) a cut no longer says which patch it is of.
    if scales or scale < 1 / 8:
        return Geometry(False, 1.0, (0, 0), channels, (height, width))
    offset = tuple(round((h - s * scale) / 2) for h, s in zip((height, width), shape, strict=True))
    side = max(1, round(patch * scale))
    return Geometry(True, scale, (offset[0], offset[1]), channels, (side, side))


class RepresentationStore:
    """Representations of many slices, kept as half-precision maps in temporary files.

    The layer sees every slice once, whole; patches at any place are then cut from the maps. A
    layer whose output is not a map is run on each patch instead. ``count`` says how many slices
    are kept: of wide layers only as many as take 1.5 GB, but two at least.

    Arguments:
        denoiser: The denoiser.
        layer: Layer name.
        images: Slices (H, W) in HU.
        patch: Side of the patches.
        progress: Called with (stage, done, total).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        layer: str,
        images: Sequence[Image],
        patch: int,
        progress: Progress | None = None,
    ) -> None:
        # The same network gives the same fit, bit by bit, whatever file it comes from.
        self._denoiser, self._layer = denoiser.twin(layer) or (denoiser, layer)
        self._images, self._patch = images, patch
        self.count = len(images)
        shape = images[0].shape
        first = self._features(images[0][None, None])
        self.geometry = probe_geometry(first, (shape[0], shape[1]), patch)
        self._maps: list[npt.NDArray[np.float16]] | None = None
        if not self.geometry.local:
            one = as_map(self._features(images[0][None, None, :patch, :patch]))
            self.geometry = Geometry(False, 1.0, (0, 0), one.shape[1], (one.shape[2], one.shape[3]))
            return
        self._scale = float(first.abs().max().clamp_min(1e-30)) / 64  # keeps half precision in range
        self._folder = tempfile.TemporaryDirectory(prefix="ctinv-", ignore_cleanup_errors=True)
        self._maps = []
        self.count = min(len(images), max(2, int(_MOST_BYTES / (2 * first.numel()))))
        for k, image in enumerate(images[: self.count]):
            z = as_map(first if k == 0 else self._features(image[None, None]))[0]
            stored = np.memmap(Path(self._folder.name) / str(k), np.float16, "w+", shape=tuple(z.shape))
            stored[:] = (z / self._scale).clamp(-60000, 60000).half().numpy()
            self._maps.append(stored)
            if progress:
                progress("representations", k + 1, self.count)

    def _features(self, x: Image) -> Tensor:
        z = represent(self._denoiser, self._layer, x)
        if not bool(z.isfinite().all()):
            raise CtinvError(
                f"layer {self._layer} of {self._denoiser.name} gives values that are not finite on CT; "
                "check the model's intensity"
            )
        return z

    def where(self, places: Sequence[tuple[int, int, int]], code_size: int) -> Tensor:
        """Coordinates of the patches at (slice, row, column), see :func:`embed.coordinates`.

        A layer that is shown each patch alone cannot know the place; then all are as if alone.
        """
        p = self._patch
        if self._maps is None:
            return coordinates([(0, 0)] * len(places), [(p, p)] * len(places), p, code_size)
        shapes = [(self._images[k].shape[0], self._images[k].shape[1]) for k, _, _ in places]
        return coordinates([(i, j) for _, i, j in places], shapes, p, code_size)

    def cut(self, places: Sequence[tuple[int, int, int]]) -> Tensor:
        """Representations of the patches at (slice, row, column): (N, C, h, w) or (N, C, 1, 1)."""
        if self._maps is None:
            p = self._patch
            tiles = np.stack([self._images[k][i : i + p, j : j + p] for k, i, j in places])[:, None]
            return self._features(tiles)
        maps = self._maps
        cuts = [self.geometry.cut(torch.from_numpy(maps[k]), i, j) for k, i, j in places]
        return torch.stack(cuts).float() * self._scale

    def close(self) -> None:
        """Remove the temporary file."""
        if self._maps is not None:
            self._maps = None
            self._folder.cleanup()
