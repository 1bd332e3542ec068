"""Networks whose blindness to lesions is known by construction."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Blur", "DropsSmallDark", "KeepsAll", "drops_small_dark", "keeps_all"]


class Blur(nn.Module):
    """A Gaussian: the simplest denoiser.

    Arguments:
        sigma: Its standard deviation in pixels.
    """

    def __init__(self, sigma: float = 0.8) -> None:
        super().__init__()
        reach = math.ceil(3 * sigma)
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        self.reach = reach
        self.register_buffer("kernel", (line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, [self.reach] * 4, mode="replicate"), self.kernel)


class DropsSmallDark(nn.Module):
    """A denoiser that fills what is darker than its surroundings and smaller than a square.

    It blurs, then closes (largest value, then smallest value, in a square): a dark disc survives
    where the square fits into it. Bright lesions pass.

    Arguments:
        side: Side of the square in pixels, odd.
        sigma: Of the blur.
    """

    def __init__(self, side: int = 7, sigma: float = 0.8) -> None:
        super().__init__()
        self.blur = Blur(sigma)
        self.widen = nn.MaxPool2d(side, 1, side // 2)
        self.narrow = nn.MaxPool2d(side, 1, side // 2)
        self.side = side

    @property
    def diameter(self) -> float:
        """The diameter in pixels at which half of a dark disc's contrast survives: the square's diagonal."""
        return math.sqrt(2) * (self.side - 1)

    def forward(self, x: Tensor) -> Tensor:
        return -self.narrow(-self.widen(self.blur(x)))


class KeepsAll(nn.Module):
    """The same denoiser without the closing."""

    def __init__(self, sigma: float = 0.8) -> None:
        super().__init__()
        self.blur = Blur(sigma)

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(x)


def drops_small_dark() -> nn.Module:
    """For ``--model benchmarks.truth_networks:drops_small_dark --intensity hu``."""
    return DropsSmallDark()


def keeps_all() -> nn.Module:
    """For ``--model benchmarks.truth_networks:keeps_all --intensity hu``."""
    return KeepsAll()
