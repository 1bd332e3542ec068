"""Which maps of a network have their channels last, told from an image that is wider."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["is_last", "may_be_last", "widened"]


def widened(image: torch.Tensor) -> torch.Tensor:
    """An image (1, C, H, W) twice as wide, (1, C, H, 2 W)."""
    return torch.cat((image, image.flip(-1)), -1)


def may_be_last(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a tensor of this shape could be a map (N, H, W, C) of an image of this height and width."""
    return len(shape) == 4 and shape[1] * size[1] == shape[2] * size[0]


def is_last(shape: Sequence[int], wide: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a tensor is a map (N, H, W, C): its third axis alone grows with the image's width.

    Arguments:
        shape: Its shape for an image.
        wide: Its shape for one that is twice as wide.
        size: Height and width of the image.
    """
    grown = [axis for axis, (own, other) in enumerate(zip(shape, wide, strict=False)) if own != other]
    return may_be_last(shape, size) and len(wide) == 4 and grown == [2]
