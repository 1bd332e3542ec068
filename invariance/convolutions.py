"""Convolutions of fixed weights, whose derivatives of any order cost one convolution each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FixedConvolutions"]

Settings = tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]


class _Forward(torch.autograd.Function):
    """A convolution, an affine map of the image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, settings: Settings) -> Tensor:
        ctx.weight, ctx.settings, ctx.size = weight, settings, x.shape[2:]
        stride, padding, dilation, groups = settings
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        adjoint: Tensor = _Adjoint.apply(grads[0], ctx.weight, ctx.settings, ctx.size)  # type: ignore[no-untyped-call]
        return adjoint, None, None, None


class _Adjoint(torch.autograd.Function):
    """The adjoint of a convolution without bias; ``size`` is the image's."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, weight: Tensor, settings: Settings, size: tuple[int, int]) -> Tensor:
        ctx.weight, ctx.settings = weight, settings
        stride, padding, dilation, groups = settings
        # Rows and columns that no stride reaches.
        rest = [
            size[k]
            - (
                (y.shape[2 + k] - 1) * stride[k]
                - 2 * padding[k]
                + dilation[k] * (weight.shape[2 + k] - 1)
                + 1
            )
            for k in (0, 1)
        ]
        return torch.conv_transpose2d(y, weight, None, stride, padding, rest, groups, dilation)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        again: Tensor = _Forward.apply(grads[0], ctx.weight, None, ctx.settings)  # type: ignore[no-untyped-call]
        return again, None, None, None


def _pair(value: Any) -> tuple[int, int]:
    first, second = (
        (value * 2 if len(value) == 1 else value) if isinstance(value, tuple | list) else (value, value)
    )
    return int(first), int(second)


class FixedConvolutions(TorchFunctionMode):
    """While active, two-dimensional convolutions know no gradient of their weights.

    Differentiating a convolution twice by its image, PyTorch also computes the gradient by the
    weights, wanted or not: more than half of the work. Weights that are themselves computed are
    left alone, for they might depend on the image.

    Example:
        >>> x = torch.ones(1, 1, 4, 4, requires_grad=True)
        >>> with FixedConvolutions():
        ...     y = torch.nn.functional.conv2d(x, torch.ones(1, 1, 3, 3), padding=1)
        >>> float(torch.autograd.grad(y.sum(), x)[0].max())
        9.0
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and (call := _read(*args, **(kwargs or {}))) is not None:
            return _Forward.apply(*call)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _read(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor, Tensor | None, Settings] | None:
    """A call of ``conv2d``, or None where it is better left to PyTorch."""
    computed = weight.grad_fn is not None or (bias is not None and bias.grad_fn is not None)
    if computed or isinstance(padding, str) or input.ndim != 4 or not input.requires_grad:
        return None
    bias = None if bias is None else bias.detach()
    return input, weight.detach(), bias, (_pair(stride), _pair(padding), _pair(dilation), groups)
