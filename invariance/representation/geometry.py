"""How a layer's output lies over the image, found by probing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .maps import as_map

__all__ = ["Geometry", "probe_geometry"]


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
