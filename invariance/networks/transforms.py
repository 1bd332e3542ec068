"""The invertible steps that a conditional flow is made of; all transforms are zuko's."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.nn import functional as F

__all__ = ["ActNorm", "Coupling", "DenseCoupling", "Entry", "Mixing", "Shuffle", "compose"]


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
        LULinearTransform,
        MonotonicAffineTransform,
        MonotonicRQSTransform,
        PermutationTransform,
    )


class ActNorm(LazyTransform):
    """Elementwise affine map that standardises the first batch it is initialised on.

    Source: Kingma, Dhariwal, Glow: generative flow with invertible 1x1 convolutions, NeurIPS 2018,
    https://arxiv.org/abs/1807.03039

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


_RANGE = 12.0  # standard deviations; no code is farther out
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
    than e times the spread it has without ``h``. Where ``h`` ends with the code of a reading, the
    shift starts there, and what is learned is how far the code is from it.

    Arguments:
        shape: Channels, height and width of the code map.
        context: Channels of ``h``, a map of the same height and width.
        width: Hidden channels.
        reads: Whether the last channels of ``h`` are the standardised code of a reading.
    """

    def __init__(self, shape: tuple[int, int, int], context: int, width: int, reads: bool = False) -> None:
        super().__init__()
        self.shape, self.reads = shape, reads
        self.hidden = _conv(context, width, shape[1])
        self.out = _conv(width, 2 * shape[0], shape[1])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, c: Tensor | None = None) -> Transform:
        assert c is not None
        mean, precision = self.out(F.silu(self.hidden(c))).flatten(1).chunk(2, 1)
        log_scale = F.softplus(precision + _UNIT) - 1
        scale = MonotonicAffineTransform(mean, log_scale).scale
        mean = _soft(mean, 8.0)
        if self.reads:
            mean = mean + self.start(c)
        return DependentTransform(MonotonicAffineTransform(-mean * scale, log_scale), 1)

    def start(self, c: Tensor) -> Tensor:
        """The code of the reading, (N, features), standardised; held within the range of codes."""
        return c[:, -self.shape[0] :].flatten(1).clamp(-_RANGE, _RANGE)

    @torch.no_grad()
    def initialise(self, codes: Tensor, read: Tensor) -> None:
        """Take the spread of codes about those of the reading, both standardised, (N, features).

        Arguments:
            codes: Codes.
            read: The code of the reading of each.
        """
        away = (codes - read.clamp(-_RANGE, _RANGE)).unflatten(1, self.shape)
        size = away.square().mean((0, 2, 3)).sqrt().clamp_min(2e-3)
        bias = self.out.bias
        assert bias is not None
        # The transform clips its log-scale softly; ask for what clips to the wanted one.
        wanted = (-size.log()).clamp(-0.5, 5.5)
        wanted = wanted / (1 - (wanted / math.log(1e-3)).abs().clamp_max(0.9))
        bias[len(size) :] = torch.expm1(wanted + 1).log() - _UNIT


_SHRINK = 1e-4  # of a covariance of many codes, towards equal and independent numbers
_SLOW = 0.02  # a dense matrix must learn more slowly than a convolution
_GENTLEST = 0.1  # slope of a spline at its knots, at least; steeper ones lose digits going back


def _numbers(bins: int) -> int:
    """Parameters of the map of one number: shift and scale, or a spline's bins and slopes."""
    return 3 * bins - 1 if bins else 2


class _Masked(CouplingTransform):
    """zuko's coupling on whole codes: what stays is given the identity, and nothing is gathered.

    Arguments:
        meta: What stays, with zeros where numbers move, to a map of all numbers.
        stay: 1 where numbers stay, 0 where they move, (features,).
    """

    def __init__(self, meta: Callable[[Tensor], Transform], stay: Tensor) -> None:
        Transform.__init__(self)
        self.meta, self._stay = meta, stay

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self._stay, x

    def merge(self, x_a: Tensor, x_b: Tensor, shape: torch.Size) -> Tensor:
        return x_b


def _monotonic(parameters: Tensor, bins: int) -> Transform:
    """Maps of numbers one by one; all zero parameters make the identity.

    Arguments:
        parameters: (N, numbers a map, numbers mapped).
        bins: Bins of a spline, 0 for an affine map.
    """
    if not bins:
        shift, log_scale = parameters.unbind(1)
        return DependentTransform(MonotonicAffineTransform(_soft(shift, 4.0), _soft(log_scale, 1.5)), 1)
    widths, heights, slopes = parameters.mT.split([bins, bins, bins - 1], -1)
    return DependentTransform(MonotonicRQSTransform(widths, heights, slopes, slope=_GENTLEST), 1)


class Coupling(LazyTransform):
    """Coupling whose network is convolutional over the code map and ``h``.

    The first layer acts on code and context laid side by side; it is kept as a sum of two
    convolutions, so that the context's share is computed once however many codes go with it. A third
    share comes from sums of the staying half over rows, columns and all places: without it no
    coupling reaches across the map, and samples agree too little on what a patch as a whole shows.

    Arguments:
        shape: Channels, height and width of the code map.
        mask: Which numbers of the code stay, bool (features,).
        context: Channels of ``h``.
        width: Hidden channels.
        bins: Bins of a monotonic rational-quadratic spline; 0 makes the coupling affine.
    """

    mask: Tensor

    def __init__(
        self, shape: tuple[int, int, int], mask: Tensor, context: int, width: int, bins: int = 0
    ) -> None:
        super().__init__()
        self.shape, self.bins = shape, bins
        self.register_buffer("mask", mask)
        self.code = _conv(shape[0], width, shape[1])
        self.context = nn.Conv2d(context, width, 1)
        self.whole = nn.Linear(3 * shape[0], width, bias=False)
        nn.init.zeros_(self.whole.weight)
        self.hidden = nn.Conv2d(width, width, 1)
        self.out = _conv(width, _numbers(bins) * shape[0], shape[1])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def first(self, code: Tensor, shared: Tensor) -> Tensor:
        """The first layer: codes (N, *shape), zero where they move, and the context's share."""
        root = math.sqrt(code.shape[-1])
        rows, columns = code.sum(3) / root, code.sum(2) / root
        everywhere, along, across = self.whole.weight.chunk(3, 1)
        down = F.linear(rows.mT, along) + F.linear(rows.sum(2) / root, everywhere)[:, None]
        whole = down.mT[..., None] + F.linear(columns.mT, across).mT[:, :, None]
        code = code.contiguous(memory_format=torch.channels_last)
        return F.silu(self.code(code).add_(shared).add_(whole), inplace=True)

    def _univariate(self, shared: Tensor, moves: Tensor, stays: Tensor) -> Transform:
        hidden = self.first(_soft(stays, 8.0).unflatten(1, self.shape), shared)
        out = self.out(F.silu(self.hidden(hidden))).flatten(1).unflatten(1, (_numbers(self.bins), -1))
        return _monotonic(out * moves, self.bins)

    def forward(self, c: Tensor | None = None) -> Transform:
        assert c is not None
        stay = self.mask.to(c.dtype)
        shared = self.context(c.contiguous(memory_format=torch.channels_last))
        return _Masked(partial(self._univariate, shared, 1 - stay), stay)


class _Grouped(nn.Module):
    """Several linear layers side by side, in one batched product."""

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(groups, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class DenseCoupling(LazyTransform):
    """Coupling of a vector code: networks of linear layers on the staying half and ``h``.

    An affine coupling has two networks, for shift and for scale, computed side by side; a spline
    has one. The context's share of the first layer is computed once however many codes go with it.

    Arguments:
        mask: Which numbers of the code stay, bool (features,).
        context: Channels of ``h``, a map of one pixel.
        width: Hidden numbers of each network.
        depth: Hidden layers after the first.
        bins: Bins of a monotonic rational-quadratic spline; 0 makes the coupling affine.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, context: int, width: int, depth: int, bins: int = 0) -> None:
        super().__init__()
        stays = int(mask.sum())
        self.bins, self.groups = bins, 1 if bins else 2
        self.register_buffer("mask", mask)
        self.code = nn.Linear(stays, self.groups * width)
        self.context = nn.Linear(context, self.groups * width, bias=False)
        self.hidden = nn.ModuleList(_Grouped(self.groups, width, width) for _ in range(depth))
        self.out = _Grouped(self.groups, width, (mask.numel() - stays) * _numbers(bins) // self.groups)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _univariate(self, shared: Tensor, stays: Tensor) -> Transform:
        hidden = F.silu(self.code(_soft(stays, 8.0)) + shared)
        hidden = hidden.unflatten(1, (self.groups, -1)).transpose(0, 1)
        for layer in self.hidden:
            hidden = F.silu(layer(hidden))
        out = self.out(hidden).transpose(0, 1).reshape(len(stays), _numbers(self.bins), -1)
        return _monotonic(out, self.bins)

    def forward(self, c: Tensor | None = None) -> Transform:
        assert c is not None
        return CouplingTransform(partial(self._univariate, self.context(c.flatten(1))), self.mask)


class _Linear(LULinearTransform):
    """zuko's, one factor after the other: their product would cost more than a batch of codes."""

    def _call(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.U), self.L)


class Mixing(LazyTransform):
    """Invertible linear map of the whole code that whitens what it is initialised on.

    How a code differs from that of the reading is correlated across the whole patch, and most of it
    lies along directions that the decoder hardly shows. Couplings learn that late. Set to the inverse
    root of the covariance, which of all whitening maps moves numbers least and so keeps places apart,
    this map knows it from the start: a flow that has learned nothing else draws codes of the right
    mean and covariance.

    Arguments:
        features: Numbers in a code.
    """

    start: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("start", torch.eye(features))
        self.strength = nn.Parameter(torch.ones(()))
        self.change = nn.Parameter(torch.zeros(features, features))

    @torch.no_grad()
    def initialise(self, batch: Tensor) -> None:
        """Whiten ``batch`` (N, features)."""
        covariance = torch.cov(batch.double().T)
        values, vectors = torch.linalg.eigh(covariance)
        # Of few codes the smallest eigenvalues come out too small, or zero.
        few = max(0.0, len(covariance) / len(batch) - 0.25)
        shrink = min(0.5, _SHRINK + 0.5 * few**2)
        values = (1 - shrink) * values.clamp_min(0) + shrink * values.mean() + 1e-10
        self.strength.fill_(1)
        self.change.zero_()
        self.start.copy_(torch.eye(len(values)))
        self.follow((vectors * values.rsqrt()) @ vectors.T)

    @torch.no_grad()
    def follow(self, after: Tensor) -> None:
        """Make ``after`` (features, features) part of this map: ``after`` of what it gave before."""
        factors = self.matrix().double()
        eye = torch.eye(len(factors), dtype=torch.float64)
        whole = after.double() @ factors.tril() @ (factors.triu(1) + eye)
        # Elimination without exchanging rows: L keeps the diagonal, U has ones there.
        for k in range(len(whole)):
            whole[k, k + 1 :] /= whole[k, k].clone()
            whole[k + 1 :, k + 1 :] -= torch.outer(whole[k + 1 :, k], whole[k, k + 1 :])
        self.start.copy_(whole)
        self.strength.fill_(1)
        self.change.zero_()

    def matrix(self) -> Tensor:
        """Lower and upper factor in one matrix, as zuko takes them."""
        own = self.start.diagonal().diag()
        return own + self.strength * (self.start - own) + _SLOW * self.change

    def forward(self, c: Tensor | None = None) -> Transform:
        return _Linear(self.matrix())


def compose(steps: Sequence[nn.Module]) -> LazyComposedTransform:
    """One step after the other."""
    return LazyComposedTransform(*steps)
