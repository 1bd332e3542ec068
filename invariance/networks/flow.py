"""The conditional flow between codes and the invariance variable: ``v = t(code | h)``."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from ctinv.invariance.presets import FlowConfig
from torch import Tensor, nn

from .transforms import ActNorm, Coupling, DenseCoupling, Entry, Mixing, Shuffle, compose

__all__ = ["ActNorm", "ConditionalFlow", "Coupling", "DenseCoupling", "Entry", "Mixing", "Shuffle"]

_PART = 512  # codes that a fresh flow maps at once


def _masks(shape: tuple[int, int, int], generator: torch.Generator) -> Iterator[Tensor]:
    """Random halves of the channels and checkerboards of the map, in turn."""
    channels, height, width = shape
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 0
    while True:
        half = torch.randperm(channels, generator=generator) % 2 == 0
        yield half[:, None, None].expand(shape).flatten()
        if height * width > 1:
            yield board.expand(shape).flatten()


class ConditionalFlow(nn.Module):
    """Blocks of actnorm, couplings and shuffle, each conditioned on ``h``, on standardised codes.

    The map starts with an affine step whose shift and scale are functions of ``h`` alone: what
    ``h`` tells about each number of the code is taken out before the couplings. Code maps have
    convolutional couplings, vectors dense ones. All transforms are zuko's, with their exact
    log-determinants.

    Source: Eulig, Ommer, Kachelriess, Reconstructing invariances of CT image denoising networks using
    invertible neural networks, Proc. SPIE 12304, 2022;
    Rombach, Esser, Ommer, Making sense of CNNs: interpreting deep representations and their invariances
    with INNs, ECCV 2020, https://arxiv.org/abs/2008.01777

    Arguments:
        shape: Channels, height and width of the code map; a vector has height and width 1.
        config: Sizes.
        generator: Draws the masks and permutations.
        reads: Whether ``h`` ends with the code of a reading, as :class:`Embedder` puts it there.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        config: FlowConfig,
        generator: torch.Generator,
        reads: bool = False,
    ) -> None:
        super().__init__()
        self.features = math.prod(shape)
        context = config.context + (shape[0] if reads else 0)
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))
        self.register_buffer("temperature", torch.ones(()))  # see ctinv.invariance.fitting.temperature
        vector = shape[1] == shape[2] == 1
        bins = config.bins if config.coupling == "spline" else 0

        def coupling(mask: Tensor) -> nn.Module:
            if vector:
                return DenseCoupling(mask, context, config.width, config.depth, bins)
            return Coupling(shape, mask, context, config.width, bins)

        transforms: list[nn.Module] = [
            Entry(shape, context, config.context if vector else config.width, reads)
        ]
        if reads:
            transforms.append(Mixing(self.features))
        masks = _masks(shape, generator)
        for _ in range(config.blocks):
            mask = next(masks)
            transforms.append(ActNorm(self.features))
            transforms += [coupling(mask), coupling(~mask)]
            channels = torch.randperm(shape[0], generator=generator)
            places = torch.arange(self.features).unflatten(0, shape)
            transforms.append(Shuffle(places[channels].flatten()))
        self.transform = compose(transforms)

    @torch.no_grad()
    def initialise(self, codes: Tensor, context: Tensor) -> None:
        """Standardise codes (N, features) and set actnorms and mixing from the data, front to back."""
        std, mean = torch.std_mean(codes, 0)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-4))
        batch = (codes - self.mean) / self.std
        entry = self.transform.transforms[0]
        if entry.reads:
            entry.initialise(batch, context[:, -entry.shape[0] :].flatten(1))
        for step in self.transform.transforms:
            if isinstance(step, Mixing):
                step.initialise(batch)
            if isinstance(step, ActNorm):
                batch = step.initialise(batch)
            else:  # in parts: what lies between its layers is many times as large as the codes
                parts = zip(
                    batch.split(_PART), context.expand(len(batch), -1, -1, -1).split(_PART), strict=True
                )
                batch = torch.cat([step(about)(part) for part, about in parts])

    def forward(self, code: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to the invariance variable.

        Arguments:
            code: (N, features).
            context: ``h``, (N, context, height, width); one context serves all codes.

        Returns:
            ``v`` (N, features) and log |det dv/dcode| (N,).
        """
        v, log_det = self.transform(context).call_and_ladj((code - self.mean) / self.std)
        return v / self.temperature, log_det - self.std.log().sum() - self.features * self.temperature.log()

    def inverse(self, v: Tensor, context: Tensor) -> Tensor:
        """Invariance variables (N, features) and contexts to codes (N, features)."""
        code: Tensor = self.transform(context).inv(v * self.temperature)
        return code * self.std + self.mean

    def log_prob(self, code: Tensor, context: Tensor) -> Tensor:
        """Natural log-density (N,) of codes (N, features) given contexts."""
        v, log_det = self(code, context)
        return log_det - 0.5 * v.square().sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
