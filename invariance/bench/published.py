"""The sampling loop as published, one sample at a time, on the weights of our networks.

Written anew after the description in Eulig et al., Medical Physics 2024, and what its published
code is known to do: the condition is embedded anew for every sample, spectral normalisation is
computed again at every call, images are enlarged before they are convolved, and the batch is one.
"""

from __future__ import annotations

import copy

import torch
from ctinv.invariance.infra.randomness import Purpose, generator
from ctinv.invariance.networks.biggan import BigGANDecoder
from ctinv.invariance.networks.blocks import ConditionalNorm, UpConv
from ctinv.invariance.networks.embedder import Embedder
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.vae import VAE
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PublishedLoop"]


class _Spectral:
    """A weight divided at every call by one power step's estimate of its largest singular value."""

    def __init__(self, layer: nn.Module, generator: torch.Generator) -> None:
        weight = layer.get_parameter("weight").detach()
        self._raw = weight.clone()
        start = torch.randn(weight.shape[0], generator=generator).to(weight)
        self._start = F.normalize(start, dim=0)
        bias = layer.bias
        self.bias = bias.detach() if isinstance(bias, Tensor) else None
        # The layer itself gets the weight that this amounts to.
        with torch.no_grad():
            weight.copy_(self())

    def __call__(self) -> Tensor:
        rows = self._raw.flatten(1)
        right = F.normalize(rows.T @ self._start, dim=0)
        left = F.normalize(rows @ right, dim=0)
        return self._raw / torch.dot(left, rows @ right)


class PublishedLoop:
    """Draws samples of one patch as the published code does.

    The decoder's weights are replaced by their spectrally normalised values, so that any other way
    to sample with it draws the same images. Make this first, and prepare the autoencoder then.

    Arguments:
        vae: The autoencoder.
        flow: The conditional flow.
        embedder: The embedder.
    """

    def __init__(self, vae: VAE, flow: ConditionalFlow, embedder: Embedder) -> None:
        numbers = generator(0, Purpose.WORKLOAD)
        self._vae, self._flow, self._embedder = vae, copy.deepcopy(flow), embedder
        decoder = vae.decoder
        parts = (
            [decoder.blocks]
            if not isinstance(decoder, BigGANDecoder)
            else [decoder.blocks, decoder.attention]
        )
        self._weights: dict[nn.Module, _Spectral] = {
            layer: _Spectral(layer, numbers)
            for part in parts
            for layer in part.modules()
            if isinstance(layer, nn.Conv2d | UpConv)
        }

    @torch.no_grad()
    def draw(self, v: Tensor, z: Tensor, where: Tensor, denoised: Tensor | None = None) -> Tensor:
        """One image (1, 1, p, p) in HU.

        Arguments:
            v: The invariance variable, (1, features).
            z: The representation, (1, ...).
            where: Its place, see :func:`ctinv.invariance.representation.maps.coordinates`.
            denoised: ``f(x)`` in HU, (1, 1, p, p), for an autoencoder that depends on it.
        """
        code = self._flow.inverse(v, self._embedder(z, where))
        vae, decoder = self._vae, self._vae.decoder
        guide = None if denoised is None else (denoised - vae.centre) / vae.spread
        if isinstance(decoder, BigGANDecoder):
            image = self._biggan(decoder, code, guide)
        else:
            condition = decoder.condition(code)
            x = decoder.stem(code.unflatten(1, decoder.code_shape))
            for block in decoder.blocks:
                x = self._block(block, x, condition, None)
            image = F.pixel_shuffle(decoder.head(F.relu(decoder.norm(x))), 2)
        return image * vae.spread + vae.centre

    def _biggan(self, decoder: BigGANDecoder, code: Tensor, guide: Tensor | None) -> Tensor:
        x, conditions = decoder.begin(code)
        last = len(decoder.blocks) - 1
        for k, (block, condition) in enumerate(zip(decoder.blocks, conditions, strict=True)):
            if k == last:
                x = self._attend(decoder.attention, x)
            small = None if guide is None else F.avg_pool2d(guide, 2 ** (last - k)) if k < last else guide
            x = self._block(block, x, condition, small)
        x = decoder.head(F.relu(decoder.norm(x)))
        return x if decoder.guide is None or guide is None else x + decoder.guide(guide)

    def _block(self, block: nn.Module, x: Tensor, condition: Tensor, guide: Tensor | None) -> Tensor:
        hidden = F.relu(_normalise(block.norm1, x, condition))  # type: ignore[arg-type]
        hidden = self._conv(block.conv1, F.interpolate(hidden, scale_factor=2), 1)  # type: ignore[arg-type]
        if guide is not None:
            hidden = hidden + self._conv(block.guide, guide, 1)  # type: ignore[arg-type]
        hidden = F.relu(_normalise(block.norm2, hidden, condition))  # type: ignore[arg-type]
        hidden = self._conv(block.conv2, hidden, 1)  # type: ignore[arg-type]
        return hidden + self._conv(block.skip, F.interpolate(x, scale_factor=2), 0)  # type: ignore[arg-type]

    def _attend(self, attention: nn.Module, x: Tensor) -> Tensor:
        def point(name: str, image: Tensor) -> Tensor:
            return self._conv(attention.get_submodule(name), image, 0)

        query = point("query", x).flatten(2)
        key, value = (F.max_pool2d(point(name, x), 2).flatten(2) for name in ("key", "value"))
        weights = torch.softmax(torch.bmm(query.mT, key), -1)
        seen = torch.bmm(value, weights.mT).unflatten(2, x.shape[2:])
        return attention.get_parameter("gain") * point("out", seen) + x

    def _conv(self, layer: nn.Module, x: Tensor, padding: int) -> Tensor:
        spectral = self._weights[layer]
        return F.conv2d(x, spectral(), spectral.bias, padding=padding)


def _normalise(norm: ConditionalNorm, x: Tensor, condition: Tensor) -> Tensor:
    gain, bias = norm.affine(condition)[..., None, None].chunk(2, 1)
    return norm.norm(x) * (1 + gain) + bias
