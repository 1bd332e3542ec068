"""The embedder ``h = H(z)``: any representation to a context map or vector."""

from __future__ import annotations

import math

import torch
from ctinv.invariance.representation.maps import PLACES, as_map
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "Embedder",
    "MapEmbedder",
    "VectorEmbedder",
    "build_embedder",
]


class Embedder(nn.Module):
    """What embedders have in common: they standardise the representation per channel.

    Arguments:
        channels: Channels of the representation.
        code_size: Side of the code map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, code_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.code_size = code_size

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Take the per-channel statistics of fitting representations; a constant channel stays 0."""
        std, mean = torch.std_mean(as_map(z).float(), (0, 2, 3), keepdim=True)
        std = torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.inf)
        self.mean.copy_(mean[0])
        self.std.copy_(std[0])

    def standardise(self, z: Tensor) -> Tensor:
        """Representations as maps with zero mean and unit spread per channel."""
        scale = self.std.reciprocal()
        return torch.addcmul(-self.mean * scale, as_map(z), scale)


class MapEmbedder(Embedder):
    """A shallow convolutional network on the standardised representation and its place.

    It shrinks the map until it has the code map's size, looks around there, and adds a learned map
    that tells the places of a patch apart. A representation that is not a map is spread over all
    places by a linear layer.

    Arguments:
        channels: Channels of the representation.
        size: Height and width of the representation of one patch.
        code_size: Side of the code map.
        context: Channels of ``h``.
        width: Channels of the first convolution.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], code_size: int, context: int, width: int
    ) -> None:
        super().__init__(channels, code_size)
        inputs = channels
        layers: list[nn.Module] = []
        if size == (1, 1):
            inputs = 2 * width
            layers = [
                nn.Flatten(),
                nn.Linear(channels, inputs * code_size**2),
                nn.SiLU(),
                nn.Unflatten(1, (inputs, code_size, code_size)),
            ]
        halvings = max(0, int(math.log2(min(size) / code_size)))
        if halvings:
            # The first sees the full resolution; without overlap it is cheap.
            first = min(2, halvings)
            outputs, halvings = int(width * 1.5 ** (first - 1)), halvings - first
            layers += [nn.Conv2d(inputs, outputs, 2**first, stride=2**first), nn.SiLU()]
            inputs = outputs
        for _ in range(halvings):
            outputs = int(2.25 * width)
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.SiLU()]
            inputs = outputs
        self.down = nn.Sequential(*layers)
        self.around = nn.Conv2d(inputs + PLACES, 2 * width, 3, padding=1)
        self.again = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.out = nn.Conv2d(2 * width, context, 1)
        self.place = nn.Parameter(torch.zeros(context, code_size, code_size))

    def forward(self, z: Tensor, where: Tensor) -> Tensor:
        """Representations of N patches to ``h`` (N, context, code_size, code_size).

        Arguments:
            z: Representations, any kind, N of them.
            where: Their places, (N, PLACES, code_size, code_size), see :func:`coordinates`.
        """
        # Values far beyond the fitting data's are drawn in, or they would dominate the context.
        x = self.down(self.standardise(z).clamp_(-8, 8))
        if x.shape[-2:] != (self.code_size, self.code_size):
            x = F.interpolate(x, (self.code_size, self.code_size), mode="bilinear", antialias=True)
        x = F.silu(self.around(torch.cat([x, where], 1)))
        x = x + F.silu(self.again(x))
        context: Tensor = self.out(x) + self.place
        return context


class VectorEmbedder(Embedder):
    """The embedder of vector codes: strided convolutions of doubling width, then a dense layer.

    The map is halved until 8 pixels are left, at least once; the dense layer sees all that remains.
    With 64 channels to start with and a map of 128 pixels this is the embedder of the papers.

    Arguments:
        channels: Channels of the representation.
        size: Height and width of the representation of one patch.
        context: Numbers in ``h``.
        width: Channels of the first convolution.
    """

    def __init__(self, channels: int, size: tuple[int, int], context: int, width: int) -> None:
        super().__init__(channels, 1)
        layers: list[nn.Module] = []
        inputs, self.left = channels, size
        if min(size) == 1:
            layers = [nn.Conv2d(inputs, 8 * width, 1), nn.SiLU()]
            inputs = 8 * width
        while min(self.left) > 8 or (min(self.left) > 1 and not layers):
            outputs = min(8, 2 ** (len(layers) // 2)) * width
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.SiLU()]
            inputs, self.left = outputs, (self.left[0] // 2, self.left[1] // 2)
        self.down = nn.Sequential(*layers)
        # Long token sequences are maps of height 1.
        self.left = (min(self.left[0], 8), min(self.left[1], 8))
        self.out = nn.Linear(inputs * self.left[0] * self.left[1], context)
        self.place = nn.Linear(PLACES, context, bias=False)

    def forward(self, z: Tensor, where: Tensor) -> Tensor:
        """Representations of N patches to ``h`` (N, context, 1, 1).

        Arguments:
            z: Representations, any kind, N of them.
            where: Their places, (N, PLACES, 1, 1), see :func:`coordinates`.
        """
        x = self.down(self.standardise(z).clamp_(-8, 8))
        if x.shape[-2:] != self.left:
            x = F.adaptive_avg_pool2d(x, self.left)
        context: Tensor = self.out(x.flatten(1)) + self.place(where.flatten(1))
        return context[..., None, None]


def build_embedder(
    channels: int, size: tuple[int, int], code_size: int, context: int, width: int
) -> Embedder:
    """The embedder for codes of a size: :class:`VectorEmbedder` for vectors, else :class:`MapEmbedder`."""
    if code_size == 1:
        return VectorEmbedder(channels, size, context, width)
    return MapEmbedder(channels, size, code_size, context, width)
