"""Features in which images are compared by a perceptual loss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import torch
from ctinv.adapters.errors import ModelError
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FilterBankFeatures", "Vgg19Features", "read_tensors"]

# VGG-19 up to its 16th convolution: output channels, or "pool" for 2x2 maxima.
_VGG19: tuple[int | str, ...] = (
    *(64, 64, "pool", 128, 128, "pool", 256, 256, 256, 256, "pool"),
    *(512, 512, 512, 512, "pool", 512, 512, 512, 512),
)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Vgg19Features(nn.Module):
    """Features of a VGG-19 trained on photographs, after its 16th convolution, as in Yang et al.

    The weights are not part of ctinv. The file may be ``.safetensors``, ``.pth`` or ``.pt`` and holds a state
    dict in torchvision's layout, ``features.0.weight`` to ``features.34.bias``; what else it holds (the
    classifier) is left alone. Nothing is unpickled but tensors.

    Arguments:
        weights: The file.
        low: Model units that become black.
        high: Model units that become white; the grey image is given to all three colours.

    Raises:
        ModelError: The file cannot be read or is not laid out so.
    """

    def __init__(self, weights: str | Path, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for item in _VGG19:
            if isinstance(item, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.ReLU()]
                channels = item
        self.features = nn.Sequential(*layers)
        wanted = self.state_dict()
        given = read_tensors(Path(weights))
        missing = [k for k, v in wanted.items() if k not in given or given[k].shape != v.shape]
        if missing:
            raise ModelError(
                f"{weights} is not VGG-19 as torchvision lays it out: {missing[0]} is missing or misshaped;"
                " give a state dict with features.0.weight to features.34.bias"
            )
        self.load_state_dict({key: given[key] for key in wanted})
        self.requires_grad_(False)
        self.low, self.high = low, high
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images (N, 1, H, W) in model units: (N, 512, H / 16, W / 16)."""
        grey = ((x - self.low) / (self.high - self.low)).expand(-1, 3, -1, -1)
        return cast(Tensor, self.features((grey - self.get_buffer("mean")) / self.get_buffer("std")))


class FilterBankFeatures(nn.Module):
    """Fixed features that need no weights: the local strength of oriented detail at several scales.

    A stand-in for VGG-19 where its weights are not at hand. At each scale (the image, and the image
    averaged over 2x2, 4x4 pixels and so on) the responses to oriented Gabor filters, in phase and out of
    phase, are joined to a magnitude and averaged over small cells. Like late VGG features these tell
    *how much* detail of which size and direction lies where, not its exact place: an image whose
    noise has been smoothed away differs from one whose noise merely looks different. The coarsest
    averaged image is added so that grey values count too.

    Arguments:
        scales: Number of scales, each half the size of the one before.
        orientations: Number of filter directions.
        cell: Side of the averaging cells, in pixels of each scale.
        floor: Smoothing of the magnitude near zero, in model units.

    Example:
        >>> FilterBankFeatures(scales=2, cell=4)(torch.zeros(3, 1, 32, 32)).shape
        torch.Size([3, 384])
    """

    filters: Tensor

    def __init__(self, scales: int = 3, orientations: int = 4, cell: int = 8, floor: float = 1e-4) -> None:
        super().__init__()
        self.scales, self.orientations, self.cell, self.floor = scales, orientations, cell, floor
        self.register_buffer("filters", _gabor(orientations), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images (N, 1, H, W) in model units, flat (N, K)."""
        parts = []
        for _ in range(self.scales):
            responses = F.conv2d(x, self.filters, padding=3)
            even, odd = responses[:, : self.orientations], responses[:, self.orientations :]
            strength = (even.square() + odd.square() + self.floor**2).sqrt()
            parts.append(F.avg_pool2d(strength, self.cell).flatten(1))
            x = F.avg_pool2d(x, 2)
        parts.append(x.flatten(1))
        return torch.cat(parts, dim=1)


def _gabor(orientations: int, wavelength: float = 3.0, spread: float = 1.5) -> Tensor:
    """Even then odd 7x7 filters, (2 x orientations, 1, 7, 7), without response to a constant, unit norm."""
    axis = torch.arange(-3, 4, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(rows**2 + columns**2) / (2 * spread**2))
    filters = []
    for phase in (0.0, math.pi / 2):
        for index in range(orientations):
            angle = math.pi * index / orientations
            wave = (math.cos(angle) * columns + math.sin(angle) * rows) * (2 * math.pi / wavelength)
            kernel = window * torch.cos(wave - phase)
            kernel = kernel - window * (kernel.sum() / window.sum())
            filters.append(kernel / kernel.norm())
    return torch.stack(filters)[:, None].float()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a state dict saved by torch; nothing else is unpickled.

    Raises:
        ModelError: The file is neither.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # of a damaged file torch raises almost anything
        raise ModelError(
            f"{path} cannot be read as weights ({err}); give a .safetensors or .pth state dict"
        ) from err
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}; give a state dict")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
