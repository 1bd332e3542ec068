"""Convolutions by fewer multiplications, exact but for rounding; they pay where channels are many."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MANY", "MANY_UP", "MinimalConv", "MinimalUpConv"]

MANY, MANY_UP = 192, 384
"""Input channels from which on saved multiplications outweigh additions; the second with upsampling."""
_ROWS, _PIXELS = 512, 1024  # tiles and pixels in one go: more of them leave the caches


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
        self._weight = torch.einsum("ar,bs,oirs->abio", axis, axis, weight).contiguous()
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """(N, H, W, inputs) to (N, 2H, 2W, outputs)."""
        n, h, w, _ = x.shape
        y = x.new_empty((n, h, 2, w, 2, len(self._bias)))
        some = max(1, _PIXELS // (h * w))
        for k in range(0, n, some):
            self._part(x[k : k + some], y[k : k + some])
        return y.view(n, 2 * h, 2 * w, -1)

    def _part(self, x: Tensor, y: Tensor) -> None:
        weight, inputs = self._weight, x.shape[3]
        plain = torch.addmm(self._bias, x.reshape(-1, inputs), weight[0, 0])
        right = [step.view(-1, inputs) @ weight[0, b + 1] for b, step in enumerate(_steps(x, 2))]
        for a, down in enumerate(_steps(x, 1)):
            straight = torch.addmm(plain, down.view(-1, inputs), weight[a + 1, 0])
            for b, corner in enumerate(_steps(down, 2)):
                part = torch.add(straight, right[b]).addmm_(corner.view(-1, inputs), weight[a + 1, b + 1])
                y[:, :, a, :, b] = part.view(*x.shape[:3], -1)


def _steps(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Differences to the neighbour before and after along an axis, zeros lying beyond both ends."""
    count = x.shape[axis] - 1
    before, after = x.clone(), x.neg()
    before.narrow(axis, 1, count).sub_(x.narrow(axis, 0, count))
    after.narrow(axis, 0, count).add_(x.narrow(axis, 1, count))
    return before, after


class MinimalConv:
    """A 3x3 convolution with zero padding by 36 instead of 144 products per 4x4 pixels.

    The transforms to and from the products are matrix products too, over all channels at once.

    Source: Lavin, Gray, Fast algorithms for convolutional neural networks, CVPR 2016,
    https://arxiv.org/abs/1509.09308, after Winograd: minimal filtering F(4x4, 3x3).

    Arguments:
        weight: The kernel, (outputs, inputs, 3, 3).
        bias: (outputs,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        into, kernel, out = (torch.tensor(m, dtype=torch.float64) for m in (_INTO, _KERNEL, _OUT))
        product = torch.einsum("ar,bs,oirs->abio", kernel, kernel, weight.double())
        self._weight = product.flatten(0, 1).to(weight.dtype).contiguous()
        self._into, self._out = (torch.kron(m, m).to(weight.dtype) for m in (into, out))
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """(N, H, W, inputs) to (N, H, W, outputs)."""
        n, h, w = x.shape[:3]
        down, across = -(-h // _TILE), -(-w // _TILE)
        y = x.new_empty((n, down * _TILE, across * _TILE, self._weight.shape[2]))
        some = max(1, _ROWS // (down * across))
        for k in range(0, n, some):
            padding = (0, 0, 1, 1 + across * _TILE - w, 1, 1 + down * _TILE - h)
            self._part(F.pad(x[k : k + some], padding), y[k : k + some])
        return y[:, :h, :w].contiguous()

    def _part(self, x: Tensor, y: Tensor) -> None:
        """Padded maps (n, 4a + 2, 4b + 2, inputs) into ``y`` (n, 4a, 4b, outputs)."""
        n, h, w, outputs = y.shape
        size = (n, h // _TILE, w // _TILE)
        tiles = x.unfold(1, _TILE + 2, _TILE).unfold(2, _TILE + 2, _TILE).permute(4, 5, 0, 1, 2, 3)
        tiles = self._into @ tiles.reshape(len(self._weight), -1)
        products = torch.bmm(tiles.view(len(self._weight), -1, x.shape[3]), self._weight)
        squares = self._out @ products.view(len(self._weight), -1)
        squares = squares.view(_TILE, _TILE, *size, outputs).permute(2, 3, 0, 4, 1, 5)
        whole = y.view(n, size[1], _TILE, size[2], _TILE, outputs)
        if self._bias is None:
            whole.copy_(squares)
        else:
            torch.add(squares, self._bias, out=whole)


_TILE = 4
_INTO = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
