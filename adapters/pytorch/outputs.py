"""Which tensor of those that a network returns is the image."""

from __future__ import annotations

import re
from typing import Any

import torch
from ctinv.adapters.errors import ModelError, UnsupportedModelError

from .values import tensors_in

__all__ = ["image_in"]


def image_in(value: Any, name: str, asked: str | None, size: tuple[int, ...]) -> tuple[torch.Tensor, str]:
    """The image among what a network returns.

    Arguments:
        value: What it returned.
        name: What the network is called.
        asked: The tensor that was asked for, as ``[0]``, ``["image"]``, ``0`` or ``image``.
        size: Height and width of the image that was given.

    Returns:
        The image (N, C, h, w), and a sentence where it was chosen among several.

    Raises:
        ModelError: The tensor asked for is not there.
        UnsupportedModelError: Several could be the image, or none.
    """
    tensors = tensors_in(value)
    if asked is not None:
        selected = [key for key in _forms(asked.strip(), value) if key in tensors]
        if not selected:
            raise ModelError(
                f"output_tensor={asked!r} is not among what {name!r} returns: "
                f"{', '.join(tensors) or 'no tensor'}"
            )
        return _plane(tensors[selected[0]], name), ""
    if len(tensors) == 1:
        return _plane(next(iter(tensors.values())), name), ""
    fitting = [
        key for key, tensor in tensors.items() if tensor.ndim == 4 and tuple(tensor.shape[-2:]) == size
    ]
    others = [tensor for tensor in tensors.values() if tensor.ndim == 4]
    if len(fitting) == 1 and len(others) == len(tensors):
        # Images of several sizes, as of networks that are trained at several scales.
        notice = f"of the {len(tensors)} images returned, {fitting[0]} is of the image's size"
        return _plane(tensors[fitting[0]], name), notice
    listed = ", ".join(f"{key} {tuple(t.shape)}" for key, t in tensors.items())
    if not tensors:
        raise UnsupportedModelError(
            f"{name!r} returns {type(value).__name__}, in which no tensor is found; let it return the image, "
            "or a tuple or dictionary with it"
        )
    first = next(iter(tensors))
    bare = re.sub(r"[\[\]\"]", "", first)
    first = bare if first in _forms(bare, value) else first
    raise UnsupportedModelError(
        f"{name!r} returns {len(tensors)} tensors ({listed}); say which is the image with "
        f"output_tensor={first!r} or the like"
    )


def _forms(asked: str, value: Any) -> list[str]:
    """The selectors that a user may mean by what was asked for."""
    fields = getattr(value, "_fields", ())
    if asked in fields:  # of a named tuple
        return [f"[{fields.index(asked)}]"]
    forms = [asked, f"[{asked}]", f'["{asked}"]', asked.replace("'", '"')]
    last = re.fullmatch(r"\[?(-\d+)\]?", asked)
    if last and isinstance(value, list | tuple):
        forms.append(f"[{len(value) + int(last.group(1))}]")
    return forms


def _plane(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The slice in the middle of a volume (N, 1, D, H, W), or the only one of (N, C, 1, H, W)."""
    if tensor.is_complex():
        raise UnsupportedModelError(
            f"{name!r} returns complex values; let its forward return the image, as .real or .abs()"
        )
    if tensor.ndim != 5:
        return tensor
    if tensor.shape[2] == 1:
        return tensor[:, :, 0]
    return tensor[:, :, tensor.shape[2] // 2] if tensor.shape[1] == 1 else tensor
