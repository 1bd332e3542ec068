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

    Where the image can be read back from the layer, the code ``E(x_R)`` of what was read stands in
    ``h`` beside what the network makes of ``z``, in units of the codes' spread.

    Arguments:
        channels: Channels of the representation.
        code_size: Side of the code map.
        reads: Shape of the code of the reading; None where there is no reading.
    """

    mean: Tensor
    std: Tensor
    code_mean: Tensor
    code_std: Tensor

    def __init__(self, channels: int, code_size: int, reads: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.code_size, self.reads = code_size, reads
        if reads is not None:
            self.register_buffer("code_mean", torch.zeros(reads))
            self.register_buffer("code_std", torch.ones(reads))

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Take the per-channel statistics of fitting representations; a constant channel stays 0."""
        std, mean = torch.std_mean(as_map(z).float(), (0, 2, 3), keepdim=True)
        std = torch.where(std > 1e-6 * mean.abs() + 1e-12, std, torch.inf)
        self.mean.copy_(mean[0])
        self.std.copy_(std[0])

    @torch.no_grad()
    def take_codes(self, codes: Tensor) -> None:
        """Take the mean and spread of the codes (N, code_dim) that the reading's are to be told in."""
        if self.reads is not None:
            std, mean = torch.std_mean(codes, 0)
            self.code_mean.copy_(mean.view(self.reads))
            self.code_std.copy_(std.clamp_min(1e-4).view(self.reads))

    def embed(self, z: Tensor, where: Tensor) -> Tensor:
        """What the network makes of representations, (N, context, code_size, code_size)."""
        raise NotImplementedError

    def forward(self, z: Tensor, where: Tensor, read: Tensor | None = None) -> Tensor:
        """Representations of N patches to ``h``.

        Arguments:
            z: Representations, any kind, N of them.
            where: Their places, (N, PLACES, code_size, code_size), see
                :func:`ctinv.invariance.representation.maps.coordinates`.
            read: ``E(x_R)`` of the patches, (N, code_dim), where there is a reading.

        Returns:
            (N, context, code_size, code_size), where there is a reading with the code's channels
            after the network's.
        """
        context = self.embed(z, where)
        if self.reads is None:
            return context
        if read is None:
            raise ValueError("this embedder goes with a reading; give the code of what was read")
        return torch.cat([context, self.in_spreads(read)], 1)

    def in_spreads(self, read: Tensor) -> Tensor:
        """Codes (N, code_dim) as maps in units of the codes' spread, (N, channels, height, width)."""
        assert self.reads is not None
        return (read.view(-1, *self.reads) - self.code_mean) / self.code_std

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
        reads: Shape of the code of the reading, where there is one.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        code_size: int,
        context: int,
        width: int,
        reads: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(channels, code_size, reads)
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

    def embed(self, z: Tensor, where: Tensor) -> Tensor:
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
        reads: Shape of the code of the reading, where there is one.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        context: int,
        width: int,
        reads: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(channels, 1, reads)
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

    def embed(self, z: Tensor, where: Tensor) -> Tensor:
        x = self.down(self.standardise(z).clamp_(-8, 8))
        if x.shape[-2:] != self.left:
            x = F.adaptive_avg_pool2d(x, self.left)
        context: Tensor = self.out(x.flatten(1)) + self.place(where.flatten(1))
        return context[..., None, None]


def build_embedder(
    channels: int,
    size: tuple[int, int],
    code_size: int,
    context: int,
    width: int,
    reads: tuple[int, int, int] | None = None,
) -> Embedder:
    """The embedder for codes of a size: :class:`VectorEmbedder` for vectors, else :class:`MapEmbedder`."""
    if code_size == 1:
        return VectorEmbedder(channels, size, context, width, reads)
    return MapEmbedder(channels, size, code_size, context, width, reads)
