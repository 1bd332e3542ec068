"""What a layer sees: its standardised output, and the Jacobian of it where there are gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ctinv.adapters.base import Denoiser
from torch import Tensor

from .convolutions import FixedConvolutions
from .embed import Embedder, as_map
from .representation import Looker

__all__ = ["Linearised", "Observer"]


class Linearised:
    """The Jacobian ``J`` of a map at a batch of images, by its products only.

    The map runs once; every product then costs about one more pass through it. Both products come
    from reverse mode: ``J^T u`` is linear in ``u``, so its own derivative with respect to ``u`` is
    ``J``. Any module that can be differentiated twice serves.

    Arguments:
        phi: Images (N, 1, H, W) in HU to an output (N, ...), one image independent of the others.
        x: Where to linearise, (N, 1, H, W), HU.

    Example:
        >>> J = Linearised(lambda x: x**2, torch.full((1, 1, 2, 2), 3.0))
        >>> J.forward(torch.ones(1, 1, 2, 2)).flatten().tolist()
        [6.0, 6.0, 6.0, 6.0]
    """

    def __init__(self, phi: Callable[[Tensor], Tensor], x: Tensor) -> None:
        with torch.enable_grad(), FixedConvolutions():
            self._x = x.detach().clone().requires_grad_()
            z = phi(self._x)
            self._z = z if z.requires_grad else None
            self.value = z.detach()
            if self._z is None:
                return
            self._u = torch.zeros_like(self._z, requires_grad=True)
            (found,) = torch.autograd.grad(
                self._z, self._x, self._u, create_graph=True, retain_graph=True, allow_unused=True
            )
            self._back = found
            if found is None or not found.requires_grad:
                self._z = None

    def forward(self, d: Tensor) -> Tensor:
        """``J d``: how the output changes with the image, (N, ...) for d (N, 1, H, W) in HU."""
        if self._z is None:
            return torch.zeros_like(self.value)
        (found,) = torch.autograd.grad(self._back, self._u, d, retain_graph=True)
        return found

    def adjoint(self, r: Tensor) -> Tensor:
        """``J^T r``, (N, 1, H, W), for r shaped as the output."""
        if self._z is None:
            return torch.zeros_like(self._x)
        (found,) = torch.autograd.grad(self._z, self._x, r, retain_graph=True)
        return found


class Observer:
    """``Phi`` at one layer with zero mean and unit spread per channel on the fitting data.

    A plain ONNX graph is looked at through its PyTorch twin, which has gradients.

    Arguments:
        denoiser: The denoiser.
        layer: Canonical layer name; kept as ``layer``.
        embedder: Holds the channels' mean and spread.
        patch: For a layer whose output is not a map over the image: the side of the patches that
            it is shown instead of the image, next to each other.
    """

    def __init__(self, denoiser: Denoiser, layer: str, embedder: Embedder, patch: int | None = None) -> None:
        self.layer = layer
        source, inner = denoiser.twin(layer) or (denoiser, layer)
        self._look, self._inner = Looker(source), inner
        self._mean, self._scale = embedder.mean, embedder.std.reciprocal()
        self._patch = patch

    @property
    def differentiable(self) -> bool:
        """Whether :meth:`linearise` works."""
        return self._look.denoiser.differentiable

    def _see(self, x: Tensor, grad: bool) -> Tensor:
        if self._patch is not None and x.shape[-2:] != (self._patch, self._patch):
            return self._see(_patches(x, self._patch), grad)
        z = self._look(x, self._inner, grad=grad, batch_size=len(x))
        return (as_map(z).to(self._mean) - self._mean) * self._scale

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, 1, H, W) in HU to (N, C, h, w); of a layer shown patches, to (N * patches, C, h, w)."""
        return self._see(x, False)

    def linearise(self, x: Tensor) -> Linearised:
        """The Jacobian at images (N, 1, H, W) in HU.

        Raises:
            UnsupportedModelError: The denoiser has no gradients.
        """
        return Linearised(lambda image: self._see(image, True), x)


def _patches(x: Tensor, side: int) -> Tensor:
    """Images (N, 1, H, W) as patches, (N * patches, 1, side, side); the last in a row may overlap."""
    height, width = x.shape[-2:]
    corners = [
        (min(i, height - side), min(j, width - side))
        for i in range(0, height, side)
        for j in range(0, width, side)
    ]
    return torch.stack([x[..., i : i + side, j : j + side] for i, j in corners], 1).flatten(0, 1)
