"""Drawing samples of one patch after another: noise, inverse flow, decoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from ctinv.invariance.infra.memory import Budget
from ctinv.invariance.infra.randomness import Purpose, philox_key
from ctinv.invariance.networks.flow import ConditionalFlow
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import Precision
from torch import Tensor

from .decoder import prepared_decoder
from .inverse import FlowInverse

__all__ = ["GROUP", "Sampler", "decoding_type", "invariance_noise"]

GROUP = {torch.float32: 10, torch.bfloat16: 25}
"""Codes decoded by one call on a processor: what its caches hold."""
_CODES = 50
"""Codes that one call of the inverse flow makes."""


def decoding_type(precision: Precision, device: torch.device) -> torch.dtype:
    """What ``auto`` means on a device: bfloat16 only where it is computed with, not emulated."""
    if precision == "auto":
        few = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else torch.cpu._is_avx512_bf16_supported()
        )
        return torch.bfloat16 if few else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


class Sampler:
    """Draws invariances of patches with a fitted flow and autoencoder.

    Convolution and matrix kernels sum in an order that depends on how many samples they are given.
    On a processor they are therefore always given the same number, filled up where samples are
    lacking: what a sample looks like, bit by bit, then depends on nothing but the seed, the tile
    and the sample's number. On a GPU the batch is as large as allowed, and results of different
    batches agree to about 1e-5 of the spread.

    Arguments:
        vae: The autoencoder.
        flow: The conditional flow.
        budget: How many samples to decode at once; the same number is halved where memory runs out.
        precision: Of the decoder; the flow is always inverted in float32. ``dtype`` says which.
        workers: Threads that draw at the same time, each of which takes memory.
    """

    def __init__(
        self,
        vae: VAE,
        flow: ConditionalFlow,
        budget: Budget | None = None,
        precision: Precision = "float32",
        workers: int = 1,
    ) -> None:
        self.device = flow.mean.device
        self.dtype = decoding_type(precision, self.device)
        self._decoder, self._inverse = prepared_decoder(vae, self.dtype), FlowInverse(flow)
        self.budget = budget or Budget(_CODES)
        if self.device.type == "cpu":
            self.budget.batch = GROUP[self.dtype]
        self.budget.fit(workers * _bytes_each(vae), self.device)

    def draw(
        self, seed: int, tile: int, samples: int, context: Tensor, denoised: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The samples of one tile in portions, in order.

        Arguments:
            seed: Decides the draws, together with the tile's number.
            tile: The tile's number.
            samples: How many.
            context: ``h`` of the tile, (1, context, height, width).
            denoised: ``f(x)`` of the tile in HU, (1, 1, p, p), for an autoencoder that depends on it.

        Yields:
            Images (N, p, p) in HU; together there are ``samples`` of them.

        Raises:
            CtinvError: Memory does not suffice for a single sample.
        """
        inverse = self._inverse.bind(context)
        for start in range(0, samples, _CODES):
            v = invariance_noise(seed, tile, start, start + _CODES, self._inverse.features)
            codes = inverse(v.to(self.device))
            done, wanted = 0, min(_CODES, samples - start)
            while done < wanted:
                images = self.budget.run(partial(self._decode, codes[done:], denoised))
                yield images[: wanted - done]
                done += len(images)

    @torch.inference_mode()
    def _decode(self, codes: Tensor, denoised: Tensor | None, batch: int) -> Tensor:
        size = min(batch, _CODES)
        part = codes[:size]
        filled = torch.cat([part, part[:1].expand(size - len(part), -1)]) if len(part) < size else part
        return self._decoder(filled, denoised)[: len(part), 0]


def _bytes_each(vae: VAE) -> int:
    """About how much memory decoding one code takes: the three largest steps' outputs at once."""
    outputs: list[int] = []

    def note(_: torch.nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.numel() * output.element_size())

    hooks = [module.register_forward_hook(note) for module in vae.decoder.modules()]
    config = vae.config
    try:
        with torch.inference_mode():
            parameter = next(vae.parameters())
            code = parameter.new_zeros((1, config.code_dim))
            guide = parameter.new_zeros((1, 1, config.patch, config.patch)) if config.conditional else None
            vae.decode(code, guide)
    finally:
        for hook in hooks:
            hook.remove()
    return 2 * sum(sorted(outputs)[-3:])


def invariance_noise(seed: int, tile: int, start: int, stop: int, features: int) -> Tensor:
    """``v ~ N(0, 1)`` of the samples ``start`` to ``stop`` of one tile, (stop - start, features).

    Every sample has its own place in the sequence of a counter-based generator, so that samples can
    be drawn in any order, in any portions and anywhere, and more of them start with the same ones.

    Example:
        >>> few, many = invariance_noise(0, 7, 3, 5, 4), invariance_noise(0, 7, 0, 250, 4)
        >>> torch.equal(few, many[3:5])
        True
    """
    key = philox_key(seed, Purpose.INVARIANCES, tile)
    drawn = np.empty((stop - start, features), np.float32)
    for row, sample in zip(drawn, range(start, stop), strict=True):
        counter = np.array([0, 0, sample, 0], np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
        generator.standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(drawn)
