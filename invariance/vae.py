"""The variational autoencoder: a complete representation ``code = E(x)`` of CT patches."""

from __future__ import annotations

import itertools

import torch
from ctinv.adapters.errors import CtinvError
from torch import Tensor, nn
from torch.nn import functional as F

from .presets import VAEConfig

__all__ = ["VAE", "Decoder", "Encoder", "UpConv"]

# HU seen by the networks as 0 and as a step of 1; fixed, so that weights stay exchangeable.
_CENTRE, _SPREAD = -300.0, 500.0


class UpConv(nn.Module):
    """Nearest upsampling by two followed by a 3x3 convolution, as one exact 2x2 convolution.

    Every output phase sees only a 2x2 neighbourhood of the small image, with sums of the 3x3
    weights: 4/9 of the work and no enlarged image in memory.

    Arguments:
        inputs: Input channels.
        outputs: Output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight)
        # Row k of phase 0 sums the 3x3 rows {0}, {1, 2}; of phase 1 the rows {0, 1}, {2}.
        fold = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        self.register_buffer("fold", fold, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, 2H, 2W)."""
        n, _, height, width = x.shape
        fold: Tensor = self.fold  # type: ignore[assignment]
        outputs = self.weight.shape[0]
        weight = torch.einsum("akr,bls,oirs->aboikl", fold, fold, self.weight)
        phases = F.conv2d(F.pad(x, (1, 1, 1, 1)), weight.flatten(0, 2), self.bias.repeat(4))
        phases = phases.unflatten(1, (2, 2, outputs))
        rows = [
            torch.stack([phases[:, a, b, :, a : a + height, b : b + width] for b in (0, 1)], -1)
            for a in (0, 1)
        ]
        return torch.stack(rows, 3).reshape(n, outputs, 2 * height, 2 * width)


class _Down(nn.Module):
    """Residual block that halves the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x)))
        hidden = self.conv2(F.relu(self.norm2(hidden)))
        return hidden + self.skip(F.avg_pool2d(x, 2))


class _ConditionalNorm(nn.Module):
    """Batch normalisation whose gain and bias are linear in the code, as in BigGAN."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.affine = nn.Linear(condition, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = self.affine(condition)[..., None, None].chunk(2, 1)
        if self.training:
            return torch.addcmul(bias, self.norm(x), 1 + gain)
        # One multiply-add per pixel: the stored statistics are folded into gain and bias.
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        scale = (1 + gain) * (var + self.norm.eps).rsqrt()[:, None, None]
        return torch.addcmul(bias - scale * mean[:, None, None], x, scale)


class _Up(nn.Module):
    """BigGAN's generator block: conditional normalisation, upsampling, residual."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1 = _ConditionalNorm(inputs, condition)
        self.conv1 = UpConv(inputs, outputs)
        self.norm2 = _ConditionalNorm(outputs, condition)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x, condition)))
        hidden = self.conv2(F.relu(self.norm2(hidden, condition)))
        # A 1x1 convolution commutes with nearest upsampling; it is cheaper before it.
        return hidden + F.interpolate(self.skip(x), scale_factor=2)


class Encoder(nn.Module):
    """Residual encoder of patches to a diagonal Gaussian over codes.

    Arguments:
        config: Sizes.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.stem = nn.Conv2d(1, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(_Down(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Conv2d(widths[-1], 2 * config.code_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, 1, p, p) in network units to mean and log-variance, each (N, code_dim)."""
        mean, log_var = self.head(F.relu(self.blocks(self.stem(x)))).chunk(2, 1)
        return mean.flatten(1), log_var.flatten(1).clamp(-12, 4)


class Decoder(nn.Module):
    """BigGAN-style decoder; its conditional normalisation takes the code in place of the class.

    Arguments:
        config: Sizes.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.widths
        self.code_shape = config.code_shape
        self.stem = nn.Conv2d(config.code_channels, widths[0], 3, padding=1)
        self.condition = nn.Linear(config.code_dim, 64)
        self.blocks = nn.ModuleList(_Up(a, b, 64) for a, b in itertools.pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        # The last doubling is a sub-pixel convolution: no layer works at full resolution.
        self.head = nn.Conv2d(widths[-1], 4, 3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        """Codes (N, code_dim) to patches (N, 1, p, p) in network units."""
        condition = self.condition(code)
        x = self.stem(code.unflatten(1, self.code_shape))
        for block in self.blocks:
            x = block(x, condition)
        return F.pixel_shuffle(self.head(F.relu(self.norm(x))), 2)


class VAE(nn.Module):
    """``D(E(x))`` on patches in HU.

    Source: Eulig, Ommer, Kachelriess, Proc. SPIE 12304, 2022; decoder after Brock, Donahue,
    Simonyan, ICLR 2019 (BigGAN).

    Arguments:
        config: Sizes.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        if config.patch != config.code_size * 2 ** len(config.widths):
            raise CtinvError(
                f"{len(config.widths)} widths make patches of {config.code_size * 2 ** len(config.widths)} "
                f"pixels from a code map of {config.code_size}, not {config.patch}"
            )
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, 1, p, p) in HU to the code's mean and log-variance, each (N, code_dim)."""
        mean, log_var = self.encoder((x - _CENTRE) / _SPREAD)
        return mean, log_var

    def encode(self, x: Tensor) -> Tensor:
        """Patches (N, 1, p, p) in HU to codes (N, code_dim): the posterior's mean."""
        return self.posterior(x)[0]

    def decode(self, code: Tensor) -> Tensor:
        """Codes (N, code_dim) to patches (N, 1, p, p) in HU."""
        image: Tensor = self.decoder(code) * _SPREAD + _CENTRE
        return image

    def loss(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Negative evidence lower bound per pixel, scaled by ``2 sigma^2``.

        Arguments:
            x: Patches (N, 1, p, p) in HU.
            noise: Standard normal numbers (N, code_dim).

        Returns:
            The loss and the mean squared error of the reconstruction (HU^2).
        """
        mean, log_var = self.posterior(x)
        error = (self.decode(mean + noise * (0.5 * log_var).exp()) - x).square().mean()
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean() / x[0].numel()
        return (error + 2 * self.config.sigma**2 * divergence) / _SPREAD**2, error
