"""The reference denoisers and the critic, as plain PyTorch modules."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

__all__ = ["Chen", "Critic", "Yang"]


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class Chen(nn.Sequential):
    """Three convolutions, 9x9x64, 3x3x32 and 3x3x1, with ReLU between; 24 001 parameters.

    Images are float tensors (N, 1, H, W) in model units, where 0 is air, so that the zeros padded
    around the image look like air. The result has the same shape. Children are named by the layer
    indices that count convolutions and ReLUs: ``conv1``, ``relu2``, ``conv3``, ``relu4``, ``conv5``.

    References:
        H. Chen et al., "Low-dose CT via convolutional neural network", Biomed. Opt. Express 8(2),
        2017.

    Example:
        >>> [name for name, _ in Chen().named_children()]
        ['conv1', 'relu2', 'conv3', 'relu4', 'conv5']
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(1, 64, 9)
        self.relu2 = nn.ReLU()
        self.conv3 = _conv(64, 32, 3)
        self.relu4 = nn.ReLU()
        self.conv5 = _conv(32, 1, 3)


class Yang(nn.Sequential):
    """Eight 3x3 convolutions, 32 filters each and one in the last, with ReLU between; 56 097 parameters.

    Images are float tensors (N, 1, H, W) in model units, where 0 is air, so that the zeros padded
    around the image look like air. The result has the same shape. Children are named by the layer
    indices that count convolutions and ReLUs: ``conv1``, ``relu2``, ``conv3`` and so on to ``conv15``.

    References:
        Q. Yang et al., "Low-dose CT image denoising using a generative adversarial network with
        Wasserstein distance and perceptual loss", IEEE Trans. Med. Imaging 37(6), 2018.

    Example:
        >>> Yang().conv7.out_channels
        32
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv(1, 32, 3)
        self.relu2 = nn.ReLU()
        self.conv3 = _conv(32, 32, 3)
        self.relu4 = nn.ReLU()
        self.conv5 = _conv(32, 32, 3)
        self.relu6 = nn.ReLU()
        self.conv7 = _conv(32, 32, 3)
        self.relu8 = nn.ReLU()
        self.conv9 = _conv(32, 32, 3)
        self.relu10 = nn.ReLU()
        self.conv11 = _conv(32, 32, 3)
        self.relu12 = nn.ReLU()
        self.conv13 = _conv(32, 32, 3)
        self.relu14 = nn.ReLU()
        self.conv15 = _conv(32, 1, 3)


class Critic(nn.Module):
    """The critic of Yang et al.: six 3x3 convolutions, strides 1 and 2 in turn, and two dense layers.

    Patches are float tensors (N, 1, ``patch``, ``patch``); the result, (N,), is one score per patch,
    without an upper or lower bound, as a Wasserstein critic needs.

    Arguments:
        patch: Side of the patches, in pixels; a multiple of 8.
        width: Filters of the first two convolutions; the later pairs have twice and four times as many.
        hidden: Units of the first dense layer.
        slope: Slope of the leaky ReLU for negative values.

    Raises:
        ValueError: ``patch`` is not a positive multiple of 8.

    Example:
        >>> import torch
        >>> Critic(patch=32)(torch.zeros(5, 1, 32, 32)).shape
        torch.Size([5])
    """

    def __init__(self, patch: int = 64, width: int = 64, hidden: int = 1024, slope: float = 0.2) -> None:
        super().__init__()
        if patch < 8 or patch % 8:
            raise ValueError(f"patch is {patch}; it must be a positive multiple of 8")
        layers: list[nn.Module] = []
        inputs = 1
        for index, outputs in enumerate((width, width, 2 * width, 2 * width, 4 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=1 + index % 2, padding=1), nn.LeakyReLU(slope)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(inputs * (patch // 8) ** 2, hidden)
        self.activation = nn.LeakyReLU(slope)
        self.score = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Score patches (N, 1, patch, patch); returns (N,)."""
        hidden = self.activation(self.hidden(self.features(x).flatten(1)))
        return cast(Tensor, self.score(hidden)).squeeze(1)
