"""Any representation as a map, and where the cells of a map lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["PLACES", "as_map", "coordinates"]


_WAVES = (1, 2, 4, 8)


PLACES = 2 + 4 * len(_WAVES)
"""Channels of :func:`coordinates`."""


def as_map(z: Tensor) -> Tensor:
    """Any representation as a map (N, C, H, W).

    Maps stay as they are; the depth of volumes (N, C, D, H, W) becomes channels. Tokens (N, T, C)
    become a square map where T is a square (row-major, as vision transformers flatten them), else a
    map of height 1. Vectors (N, C) become 1x1 maps.
    """
    if z.ndim == 4:
        return z
    if z.ndim == 5:
        return z.flatten(1, 2)
    if z.ndim == 3:
        tokens, channels = z.shape[1:]
        side = math.isqrt(tokens)
        height = side if side * side == tokens else 1
        return z.transpose(1, 2).reshape(len(z), channels, height, tokens // height)
    return z.reshape(len(z), -1, 1, 1)


def coordinates(
    corners: Sequence[tuple[int, int]], shapes: Sequence[tuple[int, int]], patch: int, code_size: int
) -> Tensor:
    """Where the cells of each patch's code map lie in their image.

    A layer's blindness may depend on the place, and ``z`` of a whole slice tells the place.

    Arguments:
        corners: Top-left pixel (row, column) of each of N patches.
        shapes: Height and width of each patch's image.
        patch: Side of a patch.
        code_size: Side of the code map.

    Returns:
        Row and column of the cells' centres, from -1 to 1 over the image, then their sines and
        cosines at several wavelengths, (N, PLACES, size, size).

    Example:
        >>> coordinates([(0, 64)], [(128, 128)], 64, 2)[0, :2, 0, 0].tolist()
        [-0.75, 0.25]
    """
    cell = (torch.arange(code_size) + 0.5) * (patch / code_size)
    rows = torch.tensor([corner[0] for corner in corners])[:, None] + cell
    columns = torch.tensor([corner[1] for corner in corners])[:, None] + cell
    heights, widths = torch.tensor([list(shape) for shape in shapes]).T[..., None]
    grid = (2 * rows / heights - 1, 2 * columns / widths - 1)
    size = (len(corners), code_size, code_size)
    place = torch.stack([grid[0][:, :, None].expand(size), grid[1][:, None, :].expand(size)], 1)
    waves = [wave(math.pi * k / 2 * place) for k in _WAVES for wave in (torch.sin, torch.cos)]
    return torch.cat([place, *waves], 1)
