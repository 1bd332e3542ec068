"""The conditional flow between codes and the invariance variable: ``v = t(code | h)``."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.nn import functional as F

from .presets import FlowConfig

__all__ = ["ActNorm", "ConditionalFlow", "Coupling", "Entry", "Shuffle"]


@contextmanager
def _argument_checks_kept() -> Iterator[None]:
    """Importing zuko switches off argument checks of torch.distributions process-wide; undo that."""
    if "zuko" in sys.modules:  # someone else's choice by now
        yield
        return
    validate, constraints = Distribution._validate_args, Distribution.__dict__["arg_constraints"]
    try:
        yield
    finally:
        Distribution._validate_args = validate
        Distribution.arg_constraints = constraints  # type: ignore[method-assign]


with _argument_checks_kept():
    from zuko.lazy import LazyComposedTransform, LazyTransform
    from zuko.transforms import (
        CouplingTransform,
        DependentTransform,
        MonotonicAffineTransform,
        PermutationTransform,
    )


class ActNorm(LazyTransform):
    """Elementwise affine map that standardises the first batch it is initialised on.

    Source: Kingma, Dhariwal, NeurIPS 2018 (Glow).

    Arguments:
        features: Numbers in a code.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def initialise(self, batch: Tensor) -> Tensor:
        """Standardise ``batch`` (N, features); returns the standardised batch."""
        std, mean = torch.std_mean(batch, 0)
        log_scale = -std.clamp_min(1e-3).log()
        # The transform clips its log-scale softly; ask for the value that clips to the wanted one.
        self.log_scale.copy_(log_scale / (1 - (log_scale / math.log(1e-3)).abs().clamp_max(0.9)))
        scale = MonotonicAffineTransform(self.shift, self.log_scale).scale
        self.shift.copy_(-mean * scale)
        return batch * scale + self.shift

    def forward(self, c: Tensor | None = None) -> Transform:
        return DependentTransform(MonotonicAffineTransform(self.shift, self.log_scale), 1)


class Shuffle(LazyTransform):
    """A fixed permutation of the code, stored with the weights.

    Arguments:
        order: The permutation, (features,).
    """

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, c: Tensor | None = None) -> Transform:
        return PermutationTransform(self.order)


_UNIT = math.log(math.e - 1)  # softplus of this is 1


def _conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution on code maps; on a single pixel a 3x3 kernel would only multiply zeros."""
    kernel = 3 if size > 1 else 1
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def _soft(x: Tensor, bound: float) -> Tensor:
    """The identity near 0, never beyond ``bound``: far from the fitting data nothing explodes."""
    return bound * torch.tanh(x / bound)


class Entry(LazyTransform):
    """Elementwise affine map whose shift and scale are functions of ``h`` alone.

    Given ``h``, a number of the code may be known to any precision, but its spread is never more
    than e times the spread it has without ``h``.

    Arguments:
        shape: Channels, height and width of the code map.
        context: Channels of ``h``, a map of the same height and width.
        width: Hidden channels.
    """

    def __init__(self, shape: tuple[int, int, int], context: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.hidden = _conv(context, width, shape[1])
        self.out = _conv(width, 2 * shape[0], shape[1])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, c: Tensor | None = None) -> Transform:
        assert c is not None
        mean, precision = self.out(F.silu(self.hidden(c))).flatten(1).chunk(2, 1)
        log_scale = F.softplus(precision + _UNIT) - 1
        scale = MonotonicAffineTransform(mean, log_scale).scale
        return DependentTransform(MonotonicAffineTransform(-_soft(mean, 8.0) * scale, log_scale), 1)


class Coupling(LazyTransform):
    """Affine coupling whose network is convolutional over the code map and ``h``.

    The first layer acts on code and context laid side by side; it is kept as a sum of two
    convolutions, so that the context's share is computed once however many codes go with it.

    Arguments:
        shape: Channels, height and width of the code map.
        mask: Which numbers of the code stay, bool (features,).
        context: Channels of ``h``.
        width: Hidden channels.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], mask: Tensor, context: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mask", mask)
        self.code = _conv(shape[0], width, shape[1])
        self.context = nn.Conv2d(context, width, 1)
        self.hidden = nn.Conv2d(width, width, 1)
        self.out = _conv(width, 2 * shape[0], shape[1])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def _univariate(self, shared: Tensor, stays: Tensor) -> Transform:
        code = stays.new_zeros((len(stays), self.mask.numel()))
        code[:, self.mask] = stays
        hidden = F.silu(self.code(_soft(code, 8.0).unflatten(1, self.shape)) + shared)
        shift, log_scale = self.out(F.silu(self.hidden(hidden))).flatten(1).chunk(2, 1)
        moves = ~self.mask
        return DependentTransform(
            MonotonicAffineTransform(_soft(shift[:, moves], 4.0), _soft(log_scale[:, moves], 1.5)), 1
        )

    def forward(self, c: Tensor | None = None) -> Transform:
        assert c is not None
        return CouplingTransform(partial(self._univariate, self.context(c)), self.mask)


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
    """Blocks of actnorm, coupling and shuffle, each conditioned on ``h``, on standardised codes.

    The map starts with an affine step whose shift and scale are functions of ``h`` alone: what
    ``h`` tells about each number of the code is taken out before the couplings. All transforms
    are zuko's, with their exact log-determinants.

    Source: Eulig, Ommer, Kachelriess, Proc. SPIE 12304, 2022; Rombach, Esser, Ommer, ECCV 2020.

    Arguments:
        shape: Channels, height and width of the code map; a vector has height and width 1.
        config: Sizes.
        generator: Draws the masks and permutations.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, int, int], config: FlowConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.features = math.prod(shape)
        self.register_buffer("mean", torch.zeros(self.features))
        self.register_buffer("std", torch.ones(self.features))
        transforms: list[LazyTransform] = [Entry(shape, config.context, config.width)]
        masks = _masks(shape, generator)
        for _ in range(config.blocks):
            mask = next(masks)
            transforms.append(ActNorm(self.features))
            transforms += [Coupling(shape, half, config.context, config.width) for half in (mask, ~mask)]
            channels = torch.randperm(shape[0], generator=generator)
            places = torch.arange(self.features).unflatten(0, shape)
            transforms.append(Shuffle(places[channels].flatten()))
        self.transform = LazyComposedTransform(*transforms)

    @torch.no_grad()
    def initialise(self, codes: Tensor, context: Tensor) -> None:
        """Standardise codes (N, features) and set every actnorm from the data, front to back."""
        std, mean = torch.std_mean(codes, 0)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-4))
        batch = (codes - self.mean) / self.std
        for step in self.transform.transforms:
            batch = step.initialise(batch) if isinstance(step, ActNorm) else step(context)(batch)

    def forward(self, code: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to the invariance variable.

        Arguments:
            code: (N, features).
            context: ``h``, (N, context, height, width); one context serves all codes.

        Returns:
            ``v`` (N, features) and log |det dv/dcode| (N,).
        """
        v, log_det = self.transform(context).call_and_ladj((code - self.mean) / self.std)
        return v, log_det - self.std.log().sum()

    def inverse(self, v: Tensor, context: Tensor) -> Tensor:
        """Invariance variables (N, features) and contexts to codes (N, features)."""
        code: Tensor = self.transform(context).inv(v)
        return code * self.std + self.mean

    def log_prob(self, code: Tensor, context: Tensor) -> Tensor:
        """Natural log-density (N,) of codes (N, features) given contexts."""
        v, log_det = self(code, context)
        return log_det - 0.5 * v.square().sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
