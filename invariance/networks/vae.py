"""The variational autoencoder: a complete representation ``code = E(x)`` of CT patches."""

from __future__ import annotations

import itertools

import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.presets import VAEConfig
from torch import Tensor, nn
from torch.nn import functional as F

from .biggan import BigGANDecoder
from .blocks import ConditionalNorm, UpConv, fold_upsampling
from .resnet import ResNetEncoder

__all__ = ["VAE", "Decoder", "Encoder"]

# HU seen by the networks as 0 and as a step of 1; fixed, so that weights stay exchangeable.
_CENTRE, _SPREAD = -300.0, 500.0


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


class _Up(nn.Module):
    """BigGAN's generator block: conditional normalisation, upsampling, residual."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(inputs, condition)
        self.conv1 = UpConv(inputs, outputs)
        self.norm2 = ConditionalNorm(outputs, condition)
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
        self.stem = nn.Conv2d(2 if config.conditional else 1, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.Sequential(*(_Down(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Conv2d(widths[-1], 2 * config.code_channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (N, 1 or 2, p, p) in network units to mean and log-variance, each (N, code_dim)."""
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

    Source: Eulig, Ommer, Kachelriess, Reconstructing invariances of CT image denoising networks using
    invertible neural networks, Proc. SPIE 12304, 2022;
    decoder after Brock, Donahue, Simonyan, Large scale GAN training for high fidelity natural image
    synthesis, ICLR 2019, https://arxiv.org/abs/1809.11096; conditional on ``f(x)``: Eulig, Jaeger, Maier,
    Ommer, Kachelriess, Reconstructing and analyzing the invariances of low-dose CT image denoising networks,
    Medical Physics 52, 2025, https://doi.org/10.1002/mp.17413

    Arguments:
        config: Sizes.

    Raises:
        CtinvError: Sizes that do not fit one another.
    """

    centre, spread = _CENTRE, _SPREAD

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        if "plain" in (config.encoder, config.decoder):
            side = config.code_size * 2 ** len(config.widths)
            if config.patch != side:
                raise CtinvError(
                    f"{len(config.widths)} widths make patches of {side} "
                    f"pixels from a code map of {config.code_size}, not {config.patch}"
                )
        if config.conditional and config.decoder == "plain":
            raise CtinvError(
                "the plain decoder does not take the denoiser's output; set vae.decoder=biggan or "
                "vae.conditional=false"
            )
        self.config = config
        self.encoder = Encoder(config) if config.encoder == "plain" else ResNetEncoder(config)
        self.decoder = Decoder(config) if config.decoder == "plain" else BigGANDecoder(config)

    def ready(self) -> VAE:
        """Bake spectral normalisation in, fold what can be folded and stop training; returns itself."""
        if isinstance(self.decoder, BigGANDecoder):
            self.decoder.bake()
        self.eval().requires_grad_(False)
        # Fitted or loaded, the weights lie alike in memory: the same convolutions run, to the last bit.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fold_upsampling(self)
        return self

    def posterior(self, x: Tensor, denoised: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The code's mean and log-variance, each (N, code_dim).

        Arguments:
            x: Patches (N, 1, p, p) in HU.
            denoised: ``f(x)`` of these patches (N, 1, p, p) in HU; a conditional VAE needs it.
        """
        guide = self._guide(denoised)
        units = self.normalised(x)
        mean, log_var = self.encoder(units if guide is None else torch.cat([units, guide], 1))
        return mean.to(x.dtype), log_var.to(x.dtype)

    def encode(self, x: Tensor, denoised: Tensor | None = None) -> Tensor:
        """Patches (N, 1, p, p) in HU to codes (N, code_dim): the posterior's mean.

        Arguments:
            x: Patches.
            denoised: ``f(x)`` of these patches (N, 1, p, p) in HU; a conditional VAE needs it.
        """
        return self.posterior(x, denoised)[0]

    def decode(self, code: Tensor, denoised: Tensor | None = None) -> Tensor:
        """Codes (N, code_dim) to patches (N, 1, p, p) in HU.

        Arguments:
            code: Codes.
            denoised: ``f(x)`` of the patches (N, 1, p, p) in HU, or one (1, 1, p, p) for all codes; a
                conditional VAE needs it.
        """
        guide = self._guide(denoised)
        image: Tensor = self.decoder(code) if guide is None else self.decoder(code, guide)
        return image.to(code.dtype) * self.spread + self.centre

    def normalised(self, x: Tensor) -> Tensor:
        """Images in HU in the units of the networks."""
        return (x - self.centre) / self.spread

    def _guide(self, denoised: Tensor | None) -> Tensor | None:
        if self.config.conditional != (denoised is not None):
            raise CtinvError(
                "this VAE depends on the denoiser; give f(x) as denoised"
                if self.config.conditional
                else "this VAE does not depend on the denoiser; leave denoised away"
            )
        return None if denoised is None else self.normalised(denoised)

    def loss(self, x: Tensor, noise: Tensor, denoised: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Negative evidence lower bound per pixel, scaled by ``2 sigma^2``.

        Arguments:
            x: Patches (N, 1, p, p) in HU.
            noise: Standard normal numbers (N, code_dim).
            denoised: ``f(x)`` of these patches (N, 1, p, p) in HU; a conditional VAE needs it.

        Returns:
            The loss and the reconstruction (N, 1, p, p) in HU.
        """
        mean, log_var = self.posterior(x, denoised)
        image = self.decode(mean + noise * (0.5 * log_var).exp(), denoised)
        error = (image - x).square().mean()
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1).mean() / x[0].numel()
        return (error + 2 * self.config.sigma**2 * divergence) / self.spread**2, image
