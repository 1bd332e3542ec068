"""Residual networks as encoders, after He et al. 2016, with the weight names of torchvision.

Written here because torchvision has to match torch to the build and brings far more than a
hundred lines of network; the names let ImageNet weights be loaded where the user has them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.presets import VAEConfig
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNetEncoder"]

_DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class _Basic(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        nn.init.zeros_(self.bn2.weight)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(hidden)) + self.downsample(x), inplace=True)


class _Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width; the 3x3 convolution carries the stride."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        nn.init.zeros_(self.bn3.weight)
        self.downsample = _projection(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.bn1(self.conv1(x)), inplace=True)
        hidden = F.relu(self.bn2(self.conv2(hidden)), inplace=True)
        return F.relu(self.bn3(self.conv3(hidden)) + self.downsample(x), inplace=True)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNetEncoder(nn.Module):
    """A residual network whose pooled features give a diagonal Gaussian over codes.

    Source: He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016,
    https://arxiv.org/abs/1512.03385

    Arguments:
        config: Sizes; ``encoder`` names the depth. A code map is at most 1/32 of the patch.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        if config.code_size > max(1, config.patch // 32):
            raise CtinvError(
                f"{config.encoder} makes of {config.patch} pixels a map of {max(1, config.patch // 32)}, "
                f"too small for codes of size {config.code_size}; take a smaller vae.code_size"
            )
        self.size = config.code_size
        block = _Basic if config.encoder in ("resnet18", "resnet34") else _Bottleneck
        self.conv1 = nn.Conv2d(2 if config.conditional else 1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels, stages = 64, []
        for k, depth in enumerate(_DEPTHS[config.encoder]):
            stage: list[nn.Module] = []
            for j in range(depth):
                stage.append(block(channels, 64 * 2**k, 2 if k and not j else 1))
                channels = 64 * 2**k * block.expansion
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.head = nn.Conv2d(channels, 2 * config.code_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, 1 or 2, p, p) in network units to mean and log-variance, each (N, code_dim)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        mean, log_var = self.head(F.adaptive_avg_pool2d(x, self.size)).chunk(2, 1)
        return mean.flatten(1), log_var.flatten(1).clamp(-12, 4)

    def load_photographs(self, path: str | Path) -> None:
        """Take the weights of a network trained on ImageNet, all but the head.

        The colours' first weights are summed, as for a grey photograph, and shared among the inputs.

        Arguments:
            path: A ``.safetensors``, ``.pth`` or ``.pt`` state dict with torchvision's names; nothing
                else is unpickled.

        Raises:
            CtinvError: The file cannot be read or is of another network.
        """
        given = _read(Path(path))
        wanted = {k: v for k, v in self.state_dict().items() if not k.startswith("head.")}
        if "conv1.weight" in given and given["conv1.weight"].ndim == 4:
            inputs = self.conv1.in_channels
            grey = given["conv1.weight"].sum(1, keepdim=True) / inputs
            given["conv1.weight"] = grey.expand(-1, inputs, -1, -1)
        wrong = [k for k, v in wanted.items() if k not in given or given[k].shape != v.shape]
        if wrong:
            raise CtinvError(
                f"{path} holds other weights than the encoder's ({wrong[0]} is missing or misshaped); give "
                "a state dict of the same residual network with torchvision's names"
            )
        self.load_state_dict({k: given[k] for k in wanted}, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
        return {k: v for k, v in content.items() if isinstance(v, Tensor)}
    except Exception as error:  # of a damaged file torch raises almost anything
        raise CtinvError(
            f"{path} cannot be read as weights ({error}); give a .safetensors or .pth state dict"
        ) from error
