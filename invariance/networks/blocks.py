"""Layers that encoders, decoders and critics share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

__all__ = ["ConditionalNorm", "UpConv", "add_spectral_norm", "bake_spectral_norm", "fold_upsampling"]


class UpConv(nn.Module):
    """Nearest upsampling by two followed by a 3x3 convolution, as one exact transposed convolution.

    Every output pixel sees only 2x2 pixels of the small image, with sums of the 3x3 weights: 4/9 of
    the work and no enlarged image in memory.

    Arguments:
        inputs: Input channels.
        outputs: Output channels.
    """

    folded: Tensor | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight)
        self.register_buffer("folded", None, persistent=False)

    def kernel(self) -> Tensor:
        """The 4x4 kernel of the transposed convolution, (inputs, outputs, 4, 4)."""
        top, middle, bottom = self.weight.transpose(0, 1).flip(2, 3).unbind(2)
        left, centre, right = torch.stack([top, top + middle, middle + bottom, bottom], 2).unbind(3)
        return torch.stack([left, left + centre, centre + right, right], 3)

    def train(self, mode: bool = True) -> UpConv:
        if mode:
            self.folded = None
        return super().train(mode)

    def fold(self) -> None:
        """Keep the 4x4 kernel, for inference; until the weights are loaded or trained again."""
        with torch.no_grad():
            self.folded = self.kernel().contiguous(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        # On few pixels summing the kernel's weights costs more than it saves.
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] < 1024:
            return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, self.bias, padding=1)
        kernel = self.kernel() if self.folded is None else self.folded
        return F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self.folded = None
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[arg-type]


class ConditionalNorm(nn.Module):
    """Batch normalisation whose gain and bias are linear in a condition, as in BigGAN.

    Arguments:
        channels: Channels of the map.
        condition: Numbers in the condition.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps (N, channels, H, W) and conditions (N, condition) to maps (N, channels, H, W)."""
        gain, bias = self.affine(condition)[..., None, None].chunk(2, 1)
        if self.training:
            return torch.addcmul(bias, self.norm(x), 1 + gain)
        # One multiply-add per pixel: the stored statistics are folded into gain and bias.
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        scale = (1 + gain) * (var + self.norm.eps).rsqrt()[:, None, None]
        return torch.addcmul(bias - scale * mean[:, None, None], x, scale)


def add_spectral_norm(module: nn.Module) -> None:
    """Divide the weights of every convolution and linear layer inside by their largest singular value.

    Source: Miyato, Kataoka, Koyama, Yoshida, Spectral normalization for generative adversarial networks,
    ICLR 2018, https://arxiv.org/abs/1802.05957
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear | UpConv):
            spectral_norm(layer)


def bake_spectral_norm(module: nn.Module) -> None:
    """Replace spectrally normalised weights by their present value; nothing where there are none.

    In evaluation mode the outputs stay the same.
    """
    training = module.training
    module.eval()  # in training mode reading a weight would turn the power iteration once more
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
    module.train(training)


def fold_upsampling(module: nn.Module) -> None:
    """Prepare every :class:`UpConv` inside for inference."""
    for layer in module.modules():
        if isinstance(layer, UpConv):
            layer.fold()
