"""Convolutions of fixed weights, whose derivatives of any order cost one convolution each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ctinv.adapters.errors import UnsupportedModelError
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["FixedConvolutions", "Linearised"]

_STEP = 2.0  # HU

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
    # Channels last is what processors convolve; weights in that order hand it on to what follows.
    weight = weight.detach().contiguous(memory_format=torch.channels_last)
    return input, weight, bias, (_pair(stride), _pair(padding), _pair(dilation), groups)


class Linearised:
    """The Jacobian ``J`` of a map at a batch of images, by its products only.

    The map runs once; every product then costs about one more pass through it. Both products come
    from reverse mode: ``J^T u`` is linear in ``u``, so its own derivative with respect to ``u`` is
    ``J``. Where a map cannot be differentiated twice, ``J`` is taken from differences.

    Arguments:
        phi: Images (N, 1, H, W) in HU to an output (N, ...), one image independent of the others.
        x: Where to linearise, (N, 1, H, W), HU.

    Raises:
        UnsupportedModelError: The map cannot be differentiated.

    Example:
        >>> J = Linearised(lambda x: x**2, torch.full((1, 1, 2, 2), 3.0))
        >>> J.forward(torch.ones(1, 1, 2, 2)).flatten().tolist()
        [6.0, 6.0, 6.0, 6.0]
    """

    def __init__(self, phi: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._phi = phi
        with torch.enable_grad(), FixedConvolutions():
            self._x = x.detach().clone().requires_grad_()
            z = phi(self._x)
            self._z = z if z.requires_grad else None
            self.value = z.detach()
            if self._z is None:
                return
            self._u = torch.zeros_like(self._z, requires_grad=True)
            try:
                (back,) = torch.autograd.grad(
                    self._z, self._x, self._u, create_graph=True, retain_graph=True, allow_unused=True
                )
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise UnsupportedModelError(
                    f"the layer cannot be differentiated ({str(error).strip().splitlines()[0]}); ask for no "
                    "refinement (refine=0)"
                ) from error
            self._back = back
            self._twice = True
            if back is None or not back.requires_grad:
                self._z = None

    def forward(self, d: Tensor) -> Tensor:
        """``J d``: how the output changes with the image, (N, ...) for d (N, 1, H, W) in HU."""
        if self._z is None:
            return torch.zeros_like(self.value)
        if self._twice:
            try:
                (product,) = torch.autograd.grad(self._back, self._u, d, retain_graph=True)
                return product
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # some operation has no second derivative
                self._twice = False
        return self._difference(d)

    @torch.no_grad()
    def _difference(self, d: Tensor) -> Tensor:
        """``J d`` from the map on both sides, a few HU away at the farthest."""
        step = _STEP / max(float(d.abs().max()), 1e-30)
        return (self._phi(self._x + step * d) - self._phi(self._x - step * d)).detach() / (2 * step)

    def adjoint(self, r: Tensor) -> Tensor:
        """``J^T r``, (N, 1, H, W), for r shaped as the output."""
        if self._z is None:
            return torch.zeros_like(self._x)
        (product,) = torch.autograd.grad(self._z, self._x, r, retain_graph=True)
        return product
