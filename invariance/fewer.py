"""Convolutions by fewer multiplications, exact but for rounding; they pay where channels are many."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MANY", "MinimalConv", "MinimalUpConv"]

MANY = 768
"""Input channels from which on the multiplications saved outweigh the additions."""


class MinimalUpConv:
    """Nearest upsampling by two and a 3x3 convolution by 9 instead of 36 products per input pixel.

    Along one axis the two outputs of a pixel are ``(w0+w1+w2) x[i] - w0 (x[i] - x[i-1])`` and
    ``(w0+w1+w2) x[i] + w2 (x[i+1] - x[i])``: three products, all on the small image.

    Arguments:
        weight: The 3x3 kernel, (outputs, inputs, 3, 3).
        bias: (outputs,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        axis = weight.new_tensor([[1, 1, 1], [-1, 0, 0], [0, 0, 1]])
        both = torch.einsum("ar,bs,oirs->abio", axis, axis, weight)
        self._bias, self._outputs = bias, weight.shape[0]
        self._plain = both[0, 0].contiguous()
        self._rows = torch.cat([both[1, 0], both[2, 0]], 1)
        self._columns = torch.cat([both[0, 1], both[0, 2]], 1)
        self._corners = torch.cat([both[1, 1], both[1, 2], both[2, 1], both[2, 2]], 1)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, H, W, inputs) to (N, 2H, 2W, outputs)."""
        n, h, w, inputs = x.shape
        o = self._outputs
        rows, columns = _steps(x, 1), _steps(x, 2)
        corners = _steps(rows, 2)
        plain = torch.addmm(self._bias, x.reshape(-1, inputs), self._plain).view(n, h, w, o)
        down = (rows.view(-1, inputs) @ self._rows).view(n, h + 1, w, 2, o)
        right = (columns.view(-1, inputs) @ self._columns).view(n, h, w + 1, 2, o)
        both = (corners.view(-1, inputs) @ self._corners).view(n, h + 1, w + 1, 2, 2, o)
        y = x.new_empty((n, h, 2, w, 2, o))
        for a in (0, 1):
            straight = plain + down[:, a : h + a, :, a]
            for b in (0, 1):
                part = y[:, :, a, :, b]
                torch.add(right[:, :, b : w + b, b], both[:, a : h + a, b : w + b, a, b], out=part)
                part += straight
        return y.view(n, 2 * h, 2 * w, o)


def _steps(x: Tensor, axis: int) -> Tensor:
    """Differences of neighbours along an axis, with zeros beyond both ends: one longer than the image."""
    size = x.shape[axis]
    shape = list(x.shape)
    shape[axis] += 1
    steps = x.new_empty(shape)
    torch.sub(x.narrow(axis, 1, size - 1), x.narrow(axis, 0, size - 1), out=steps.narrow(axis, 1, size - 1))
    steps.select(axis, 0).copy_(x.select(axis, 0))
    torch.neg(x.select(axis, size - 1), out=steps.select(axis, size))
    return steps


class MinimalConv:
    """A 3x3 convolution with zero padding by 16 instead of 36 products per 2x2 pixels.

    Source: Winograd's minimal filtering F(2x2, 3x3); Lavin, Gray, CVPR 2016.

    Arguments:
        weight: The kernel, (outputs, inputs, 3, 3).
        bias: (outputs,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        axis = weight.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        self._weight = torch.einsum("ar,bs,oirs->abio", axis, axis, weight).flatten(0, 1).contiguous()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """(N, H, W, inputs) to (N, H, W, outputs), H and W even."""
        n, h, w, inputs = x.shape
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        rows = [padded[:, k : k + h - 1 : 2] for k in range(4)]
        tiles = x.new_empty((4, 4, n, h // 2, w // 2, inputs))
        for a, line in enumerate(_spread(rows)):
            columns = [line[:, :, k : k + w - 1 : 2] for k in range(4)]
            _spread(columns, list(tiles[a]))
        products = torch.bmm(tiles.view(16, -1, inputs), self._weight)
        products = products.view(4, 4, n, h // 2, w // 2, -1)
        y = x.new_empty((n, h // 2, 2, w // 2, 2, products.shape[-1]))
        for b, line in enumerate(_gather(products)):
            for a, part in enumerate(_gather(line)):
                if self._bias is None:
                    y[:, :, b, :, a] = part
                else:
                    torch.add(part, self._bias, out=y[:, :, b, :, a])
        return y.view(n, h, w, -1)


def _spread(d: list[Tensor], out: list[Tensor] | None = None) -> list[Tensor]:
    """Winograd's transform of four neighbouring lines."""
    into: list[Tensor | None] = [None] * 4 if out is None else [*out]
    return [
        torch.sub(d[0], d[2], out=into[0]),
        torch.add(d[1], d[2], out=into[1]),
        torch.sub(d[2], d[1], out=into[2]),
        torch.sub(d[1], d[3], out=into[3]),
    ]


def _gather(m: Tensor) -> tuple[Tensor, Tensor]:
    """Two lines from four products."""
    return (m[0] + m[1]).add_(m[2]), (m[1] - m[2]).sub_(m[3])
