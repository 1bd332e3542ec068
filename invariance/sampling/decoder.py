"""A decoder prepared for many codes: folded, channels last, in place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from ctinv.invariance.networks.biggan import BigGANDecoder, SelfAttention
from ctinv.invariance.networks.blocks import ConditionalNorm, UpConv
from ctinv.invariance.networks.vae import VAE, Decoder
from torch import Tensor, nn
from torch.nn import functional as F

from .winograd import MANY, MANY_UP, MinimalConv, MinimalUpConv

__all__ = ["prepared_decoder"]

Decode = Callable[[Tensor, Tensor | None], Tensor]


class _Affine:
    """Conditional normalisation as one linear map of the condition to scale and shift per channel."""

    def __init__(self, norm: ConditionalNorm, dtype: torch.dtype) -> None:
        self._dtype = dtype
        mean, var = norm.norm.running_mean, norm.norm.running_var
        assert mean is not None
        assert var is not None
        rate = (var + norm.norm.eps).rsqrt()
        weight, bias = norm.affine.weight.detach(), norm.affine.bias.detach()
        (gain, shift), (gain_bias, shift_bias) = weight.chunk(2), bias.chunk(2)
        gain, gain_bias = gain * rate[:, None], (1 + gain_bias) * rate
        self._weight = torch.cat([gain, shift - gain * mean[:, None]])
        self._bias = torch.cat([gain_bias, shift_bias - gain_bias * mean])

    def __call__(self, x: Tensor, condition: Tensor, *, in_place: bool) -> Tensor:
        """Normalised and rectified maps (N, H, W, C)."""
        affine = F.linear(condition, self._weight, self._bias).to(self._dtype)
        scale, shift = affine[:, None, None].chunk(2, -1)
        return torch.addcmul(shift, x, scale, out=x if in_place else None).relu_()


class _Conv:
    """A convolution on maps (N, H, W, C)."""

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        weight = conv.weight.detach().to(dtype)
        self._point = conv.kernel_size == (1, 1)
        self._weight = weight[:, :, 0, 0] if self._point else _last(weight)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        self._padding = conv.padding

    def __call__(self, x: Tensor) -> Tensor:
        if self._point:
            return F.linear(x, self._weight, self._bias)
        return _back(F.conv2d(_front(x), self._weight, self._bias, padding=self._padding))


def _last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _front(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _back(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


class _Up:
    """Nearest upsampling and 3x3 convolution on maps (N, H, W, C)."""

    def __init__(self, conv: UpConv, dtype: torch.dtype) -> None:
        self._kernel, self._bias = _last(conv.kernel().detach().to(dtype)), conv.bias.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return _back(F.conv_transpose2d(_front(x), self._kernel, self._bias, stride=2, padding=1))


def _fewer(weight: Tensor, dtype: torch.dtype, many: int) -> bool:
    """Whether multiplications are worth saving; with few digits the additions would cost too many."""
    return weight.shape[1] >= many and weight.device.type == "cpu" and dtype == torch.float32


def _up(conv: UpConv, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight = conv.weight.detach()
    return MinimalUpConv(weight, conv.bias.detach()) if _fewer(weight, dtype, MANY_UP) else _Up(conv, dtype)


def _same(conv: nn.Conv2d, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    weight, bias = conv.weight.detach(), conv.bias
    if _fewer(weight, dtype, MANY):
        return MinimalConv(weight, None if bias is None else bias.detach())
    return _Conv(conv, dtype)


class _Block:
    """One residual block of either decoder."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        self._norm1, self._norm2 = _Affine(block.norm1, dtype), _Affine(block.norm2, dtype)  # type: ignore[arg-type]
        self._conv1, self._conv2 = _up(block.conv1, dtype), _same(block.conv2, dtype)  # type: ignore[arg-type]
        self._skip = _Conv(block.skip, dtype)  # type: ignore[arg-type]
        guide = getattr(block, "guide", None)
        self._guide = None if guide is None else _Conv(guide, dtype)

    def __call__(self, x: Tensor, condition: Tensor, guide: Tensor | None) -> Tensor:
        hidden = self._conv1(self._norm1(x, condition, in_place=False))
        if self._guide is not None and guide is not None:
            hidden += self._guide(guide)
        hidden = self._conv2(self._norm2(hidden, condition, in_place=True))
        n, height, width, channels = x.shape[0], x.shape[1], x.shape[2], hidden.shape[3]
        # The skip is upsampled by being added to all four pixels.
        hidden.view(n, height, 2, width, 2, channels).add_(self._skip(x)[:, :, None, :, None])
        return hidden


class _Attention:
    """Self-attention on maps (N, H, W, C)."""

    def __init__(self, attention: SelfAttention, dtype: torch.dtype) -> None:
        names = ("query", "key", "value", "out")
        self._query, self._key, self._value, self._out = (_Conv(getattr(attention, n), dtype) for n in names)
        self._gain = attention.gain.detach().to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        query = self._query(x).flatten(1, 2)
        key, value = (
            F.max_pool2d(_front(f(x)), 2).permute(0, 2, 3, 1).flatten(1, 2) for f in (self._key, self._value)
        )
        seen = _attend(query, key, value)
        return torch.addcmul(x, self._gain, self._out(seen).view_as(x))


_QUERIES = 2048  # at once, so that their scores stay in the caches


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Values (N, keys, V) averaged for each query (N, queries, K), with keys (N, keys, K)."""
    if query.device.type == "cpu" and query.dtype == torch.float32:
        seen = query.new_empty((*query.shape[:2], value.shape[2]))
        for n, queries in enumerate(query):
            for k in range(0, len(queries), _QUERIES):
                share = torch.softmax(queries[k : k + _QUERIES] @ key[n].mT, -1)
                torch.mm(share, value[n], out=seen[n, k : k + _QUERIES])
        return seen
    # The kernel that never holds all scores at once wants queries and values of one length.
    missing = value.shape[-1] - query.shape[-1]
    query, key = F.pad(query, (0, missing)), F.pad(key, (0, missing))
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]


@torch.inference_mode()
def prepared_decoder(vae: VAE, dtype: torch.dtype = torch.float32) -> Decode:
    """``VAE.decode`` of a fitted autoencoder, faster and equal to rounding.

    Normalisations are folded into one scale and shift a channel, nearest upsampling into the
    convolution after it, and the skip is added without being enlarged; maps lie channels last in
    memory. On a processor, convolutions of many channels take fewer multiplications. Weights are
    read once. Spectral normalisation must be baked in (see :meth:`VAE.ready`).

    Arguments:
        vae: The autoencoder.
        dtype: Of all but the last convolution, whose rounding would show in HU.

    Returns:
        A function of codes (N, code_dim) and, where the autoencoder depends on it, ``f(x)`` (1 or N,
        1, p, p) in HU, to patches (N, 1, p, p) in HU.
    """
    decoder = vae.decoder
    blocks = [_Block(block, dtype) for block in decoder.blocks]
    norm = decoder.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach() * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias.detach() - norm.running_mean * scale
    head = _Conv(decoder.head, torch.float32)
    centre, spread = vae.centre, vae.spread

    # Taking and clearing memory anew would cost more than what is done in it; each thread has its own.
    room = threading.local()

    def finish(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            if getattr(room, "shape", None) != x.shape:
                room.shape, room.maps = x.shape, torch.empty_like(x, dtype=torch.float32)
            x = room.maps.copy_(x)
        return _front(head(torch.addcmul(shift, x, scale, out=x).relu_()))

    if isinstance(decoder, Decoder):
        return _plain(decoder, blocks, finish, centre, spread, dtype)
    return _biggan(decoder, blocks, finish, centre, spread, dtype)


def _plain(
    decoder: Decoder,
    blocks: Sequence[_Block],
    finish: Callable[[Tensor], Tensor],
    centre: float,
    spread: float,
    dtype: torch.dtype,
) -> Decode:
    stem = _Conv(decoder.stem, dtype)

    def decode(code: Tensor, denoised: Tensor | None = None) -> Tensor:
        condition = decoder.condition(code)
        x = stem(_back(code.unflatten(1, decoder.code_shape)).to(dtype))
        for block in blocks:
            x = block(x, condition, None)
        return F.pixel_shuffle(finish(x), 2).mul_(spread).add_(centre)

    return decode


def _biggan(
    decoder: BigGANDecoder,
    blocks: Sequence[_Block],
    finish: Callable[[Tensor], Tensor],
    centre: float,
    spread: float,
    dtype: torch.dtype,
) -> Decode:
    attention = _Attention(decoder.attention, dtype)
    guided = None if decoder.guide is None else _Conv(decoder.guide, torch.float32)

    def decode(code: Tensor, denoised: Tensor | None = None) -> Tensor:
        x, conditions = decoder.begin(code)
        x = _back(x).to(dtype)
        guide = None if denoised is None else (denoised - centre) / spread
        last = len(blocks) - 1
        for k, (block, condition) in enumerate(zip(blocks, conditions, strict=True)):
            small = (
                None if guide is None else _back(F.avg_pool2d(guide, 2 ** (last - k)) if k < last else guide)
            )
            if small is not None:
                small = small.to(dtype)
            x = block(attention(x) if k == last else x, condition, small)
        x = finish(x)
        if guided is not None and guide is not None:
            x += _front(guided(_back(guide)))
        return x.mul_(spread).add_(centre)

    return decode
