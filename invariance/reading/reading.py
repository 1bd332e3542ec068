"""``x_R = R(z)``: an image read back from a layer's output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ctinv.invariance.representation.geometry import Geometry
from ctinv.invariance.representation.maps import as_map
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RIM", "Reading", "ReadingScores", "aligned", "blocks_of"]

RIM = 8
"""Places at each border of a map in which the network's padding shows; they have weights of their own."""
_FAR = 8.0  # standard deviations; the network is not asked about values beyond


def aligned(z: Tensor, geometry: Geometry, shape: tuple[int, int]) -> Tensor:
    """A layer's map laid over its image: one place for every ``1 / scale`` pixels.

    Where the map is smaller than the image, its edge is repeated; a map finer than the image keeps
    its values as further channels.

    Arguments:
        z: ``Phi(x)`` of whole images, (N, C, h, w).
        geometry: How it lies over the image.
        shape: Height and width of the image, multiples of ``1 / scale``.
    """
    z = as_map(z).float()
    for axis, side in ((2, shape[0]), (3, shape[1])):
        count, offset = round(side * geometry.scale), geometry.offset[axis - 2]
        if offset or count != z.shape[axis]:
            places = (torch.arange(count, device=z.device) + offset).clamp(0, z.shape[axis] - 1)
            z = z.index_select(axis, places)
    if geometry.scale > 1:
        z = F.pixel_unshuffle(z, round(geometry.scale))
    return z


def blocks_of(image: Tensor, side: int) -> Tensor:
    """Images (N, 1, H, W) as maps of blocks of pixels, (N, side * side, H / side, W / side)."""
    return F.pixel_unshuffle(image, side) if side > 1 else image


@dataclass(frozen=True)
class ReadingScores:
    """How far a reading is from the image on slices that it was not fitted on.

    Arguments:
        rmse: Root mean square error inside the body, HU.
        linear: That of the linear part alone, HU.
        each: ``rmse`` of every held-out slice, HU.
        ridge: The ridge that served best, as a share of the features' mean variance.
        decoded: Difference of ``D(E(x_R))`` and ``D(E(x))`` on held-out patches, HU; None where it was
            not taken.
    """

    rmse: float
    linear: float
    each: tuple[float, ...]
    ridge: float
    decoded: float | None = None


class Reading(nn.Module):
    """Reads an image in HU from a layer's output: a linear window, then a small network.

    The linear part is the best linear estimate of the block of pixels over a place from the window
    of the map around it; the network adds what is not linear. Whatever estimates the image from the
    same output has at least the error that the image's own uncertainty makes, so the error of this
    one bounds from above how much the layer can hide on average.

    Near the border a layer's padding changes what its output says. There a second linear window, with
    a ridge of its own, reads the image, less well.

    Arguments:
        channels: Channels of the aligned map.
        block: Pixels per place along each axis.
        window: Side of the linear window.
        width: Channels of the network; 0 for none.
    """

    mean: Tensor
    std: Tensor
    spread: Tensor

    def __init__(self, channels: int, block: int, window: int, width: int) -> None:
        super().__init__()
        self.channels, self.block, self.window, self.width = channels, block, window, width
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.register_buffer("spread", torch.ones(()))  # HU, of what the linear part leaves
        pixels = block * block
        self.linear = nn.Conv2d(channels, pixels, window, padding=window // 2, padding_mode="replicate")
        self.edge = nn.Conv2d(channels, pixels, window, padding=window // 2, padding_mode="replicate")
        self.network: nn.Sequential | None = None
        if width:
            self.network = nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1, padding_mode="replicate"),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
                nn.SiLU(),
                nn.Conv2d(width, pixels, 3, padding=1, padding_mode="replicate"),
            )

    @property
    def sizes(self) -> dict[str, int]:
        """What the constructor takes."""
        return {
            "channels": self.channels,
            "block": self.block,
            "window": self.window,
            "width": self.width,
        }

    def standardised(self, z: Tensor) -> Tensor:
        """An aligned map with zero mean and unit spread per channel."""
        scale = self.std.reciprocal()
        return torch.addcmul(-self.mean * scale, z, scale)

    def blocks(self, z: Tensor) -> Tensor:
        """An aligned map (N, C, h, w) to blocks of pixels (N, block * block, h, w), HU."""
        z = self.standardised(z)
        image: Tensor = self.linear(z)
        if self.network is not None:
            image = image + self.spread * self.network(z.clamp(-_FAR, _FAR))
        near = RIM + self.window // 2  # places that the windows at the border reach to
        if min(z.shape[-2:]) <= 2 * near:
            return self._edged(image, self.edge(z))
        for axis in (-2, -1):
            size = z.shape[axis]
            for first, border, rest in ((0, 0, 0), (size - near, size - RIM, near - RIM)):
                read = self.edge(z.narrow(axis, first, near))
                image.narrow(axis, border, RIM).copy_(read.narrow(axis, rest, RIM))
        return image

    @staticmethod
    def _edged(image: Tensor, edge: Tensor) -> Tensor:
        """An image with another one's border."""
        inner = torch.zeros(image.shape[-2:], dtype=torch.bool, device=image.device)
        inner[RIM:-RIM, RIM:-RIM] = True
        return torch.where(inner, image, edge)

    @torch.no_grad()
    def forward(self, z: Tensor, geometry: Geometry, shape: tuple[int, int]) -> Tensor:
        """``Phi(x)`` of whole images, (N, ...), to ``x_R`` (N, 1, H, W), HU.

        Arguments:
            z: The layer's output.
            geometry: How it lies over the image.
            shape: Height and width of the image; any.
        """
        whole = [-(-side // self.block) * self.block for side in shape]
        image = self.blocks(aligned(z, geometry, (whole[0], whole[1])))
        if self.block > 1:
            image = F.pixel_shuffle(image, self.block)
        return image[..., : shape[0], : shape[1]]
