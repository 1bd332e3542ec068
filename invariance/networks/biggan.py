"""BigGAN's generator as a decoder of codes, for patches of any power of two."""

from __future__ import annotations

import itertools
import math

import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.presets import VAEConfig
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ConditionalNorm, UpConv, add_spectral_norm, bake_spectral_norm

__all__ = ["BigGANDecoder", "SelfAttention"]

_START = 4  # side of the first map of a vector code
_SHARED = 128  # numbers in the condition that all blocks share
_CHUNK = 20  # numbers of the code that each block has to itself
_WIDEST = 16  # most channels, in units of the last block's


class SelfAttention(nn.Module):
    """Every pixel looks at every second pixel in both directions; starts as the identity.

    Source: Zhang, Goodfellow, Metaxas, Odena, Self-attention generative adversarial networks, ICML 2019,
    https://arxiv.org/abs/1805.08318

    Arguments:
        channels: Channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, few, 1, bias=False)
        self.key = nn.Conv2d(channels, few, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.out = nn.Conv2d(half, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        query = self.query(x).flatten(2).mT
        key, value = (F.max_pool2d(f(x), 2).flatten(2).mT for f in (self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return torch.addcmul(x, self.gain, self.out(seen.mT.unflatten(2, x.shape[2:])))


class _Block(nn.Module):
    """Conditional normalisation, upsampling and convolution, with a skip; ``f(x)`` joins after them."""

    def __init__(self, inputs: int, outputs: int, condition: int, guided: bool) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(inputs, condition)
        self.conv1 = UpConv(inputs, outputs)
        self.norm2 = ConditionalNorm(outputs, condition)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        # The first convolution acts on features and f(x) laid side by side; its share of f(x) is kept
        # apart, so that it is computed once however many codes go with it.
        self.guide = nn.Conv2d(1, outputs, 3, padding=1, bias=False) if guided else None

    def forward(self, x: Tensor, condition: Tensor, guide: Tensor | None) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x, condition)))
        if self.guide is not None:
            hidden = hidden + self.guide(guide)
        hidden = self.conv2(F.relu(self.norm2(hidden, condition)))
        # A 1x1 convolution commutes with nearest upsampling; it is cheaper before it.
        return hidden + F.interpolate(self.skip(x), scale_factor=2)


class BigGANDecoder(nn.Module):
    """BigGAN's generator with the code in the place of noise and class.

    The code is split: the first part becomes the first map, and every block normalises by a part of
    its own beside a learned function of the whole code, which stands in for the class. A code map
    enters as it is, and only the shared function conditions the blocks. With ``conditional`` the
    denoiser's output enters at every scale.

    Weights are plain; :meth:`normalise_spectrum` puts spectral normalisation on them for training and
    :meth:`bake` takes it off again.

    Sources: Brock, Donahue, Simonyan, Large scale GAN training for high fidelity natural image synthesis,
    ICLR 2019, https://arxiv.org/abs/1809.11096; Rombach, Esser, Ommer, Making sense of CNNs: interpreting
    deep representations and their invariances with INNs, ECCV 2020, https://arxiv.org/abs/2008.01777

    Arguments:
        config: Sizes.

    Raises:
        CtinvError: The patch is not a power of two times the first map.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        start = config.code_size if config.code_size > 1 else _START
        count = round(math.log2(max(config.patch / start, 1)))
        if count < 1 or config.patch != start * 2**count:
            raise CtinvError(
                f"the biggan decoder makes patches of {start} times a power of two, not of {config.patch}; "
                "change vae.patch or vae.code_size"
            )
        widths = [min(_WIDEST, 2 ** (count - 1 - k)) * config.channels for k in range(count)]
        widths = [widths[0], *widths]
        self.code_shape, self.start = config.code_shape, start
        vector = config.code_size == 1
        chunk = min(_CHUNK, config.code_channels // (count + 1)) if vector else 0
        self.split = [config.code_channels - count * chunk] + count * [chunk] if vector else []
        self.stem: nn.Module = (
            nn.Linear(self.split[0], widths[0] * start**2)
            if vector
            else nn.Conv2d(config.code_channels, widths[0], 3, padding=1)
        )
        sizes = [config.code_dim, *config.mapping, _SHARED]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
        self.mapping = nn.Sequential(*layers[:-1])
        guided = config.conditional
        self.blocks = nn.ModuleList(
            _Block(a, b, _SHARED + chunk, guided) for a, b in itertools.pairwise(widths)
        )
        self.attention = SelfAttention(widths[-2])
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)
        self.guide = nn.Conv2d(1, 1, 3, padding=1, bias=False) if guided else None

    def normalise_spectrum(self) -> None:
        """Put spectral normalisation on all but the mapping and the last convolution."""
        for part in (self.stem, self.blocks, self.attention):
            add_spectral_norm(part)

    def bake(self) -> None:
        """Make spectral normalisation part of the weights."""
        bake_spectral_norm(self)

    def begin(self, code: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The smallest map (N, C, start, start) and what each block is conditioned on, for codes."""
        shared = self.mapping(code)
        if not self.split:
            return self.stem(code.unflatten(1, self.code_shape)), [shared] * len(self.blocks)
        first, *parts = code.split(self.split, 1)
        x = self.stem(first).unflatten(1, (-1, self.start, self.start))
        return x, [torch.cat([part, shared], 1) for part in parts]

    def forward(self, code: Tensor, denoised: Tensor | None = None) -> Tensor:
        """Codes to patches (N, 1, p, p) in network units.

        Arguments:
            code: (N, code_dim).
            denoised: ``f(x)`` of the patches in network units, (N, 1, p, p), or one for all codes.
        """
        x, conditions = self.begin(code)
        x = x.contiguous(memory_format=torch.channels_last)
        last = len(self.blocks) - 1
        for k, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            guide = None
            if denoised is not None:
                guide = F.avg_pool2d(denoised, 2 ** (last - k)) if k < last else denoised
            x = block(self.attention(x) if k == last else x, condition, guide)
        x = self.head(F.relu(self.norm(x)))
        if self.guide is not None:
            x = x + self.guide(denoised)
        return x
