"""Gradient descent that measures its steps by what they do to the image, not to the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NaturalGradient", "run_valid"]

_ROWS = 6000  # input patches kept of each batch
_INPUTS, _OUTPUTS = 1e-3, 1e-2  # damping, as shares of the mean second moment


def run_valid(net: nn.Module, x: Tensor, seen: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    """Run a chain of convolutions and activations without padding.

    Arguments:
        net: The chain.
        x: (N, 1, H, W), model units.
        seen: Receives each convolution's input and output.

    Returns:
        (N, 1, h, w), smaller by what the convolutions would have padded.
    """
    for module in net.children():
        if isinstance(module, nn.Conv2d):
            y = F.conv2d(x, module.weight, module.bias)
            if seen is not None:
                seen.append((x, y))
            x = y
        else:
            x = module(x)
    return x


class NaturalGradient(torch.optim.Optimizer):
    """Stochastic natural gradient with momentum, after the Kronecker factors of Martens and Grosse.

    A denoiser's gradient is dominated by grey values, thousands of HU, while what is to be learned lies
    in differences of a few HU: plain steps are either too long for the one or too short for the
    other. Here each convolution's gradient ``D`` becomes ``G^-1 D A^-1``: ``A`` is the second moment
    of the patches the layer sees (with a 1 for the bias) and ``G`` that of how strongly the image
    answers to its output channels. Both are measured by :meth:`measure` and stay until the next call;
    they are not part of the state that checkpoints hold, so measure after each one.

    Arguments:
        layers: The convolutions, from the image on.
        rate: Learning rate.
        momentum: Share of the last step that is kept.
        limit: Largest length of a step before the rate, in the metric of ``A`` and ``G``.
        floor: What counts as no difference in the image, in model units; damps the first layer.

    References:
        J. Martens, R. Grosse, "Optimizing neural networks with Kronecker-factored approximate
        curvature", ICML 2015; R. Grosse, J. Martens, "A Kronecker-factored approximate Fisher matrix for
        convolution layers", ICML 2016.
    """

    def __init__(
        self, layers: Sequence[nn.Conv2d], rate: float, momentum: float, limit: float, floor: float
    ) -> None:
        super().__init__([p for layer in layers for p in layer.parameters()], {"lr": rate})
        self.layers, self.momentum, self.limit, self.floor = tuple(layers), momentum, limit, floor
        self._factors: list[tuple[Tensor, Tensor]] = []

    def measure(
        self, net: nn.Module, batches: Iterable[Tensor], scale: float, generator: torch.Generator
    ) -> None:
        """Measure both factors of every layer.

        Arguments:
            net: The network that the layers belong to.
            batches: Images (N, 1, H, W) in model units.
            scale: Units in which the loss sees the image, per model unit.
            generator: Source of the random directions in which the image is probed.
        """
        inputs = [torch.zeros(m.weight[0].numel() + 1, m.weight[0].numel() + 1).double() for m in self.layers]
        outputs = [torch.zeros(len(m.weight), len(m.weight)).double() for m in self.layers]
        count = 0
        for x in batches:
            count += 1
            seen: list[tuple[Tensor, Tensor]] = []
            image = run_valid(net, x, seen)
            probe = torch.randn(image.shape, generator=generator) * scale
            answers = torch.autograd.grad((image * probe).sum(), [y for _, y in seen])
            for index, (layer, (given, _), answer) in enumerate(zip(self.layers, seen, answers, strict=True)):
                with torch.no_grad():
                    size = (layer.kernel_size[0], layer.kernel_size[1])
                    rows = F.unfold(given, size).transpose(1, 2).flatten(0, 1)
                    rows = rows[torch.randint(len(rows), (_ROWS,), generator=generator)].double()
                    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
                    inputs[index] += rows.T @ rows / len(rows)
                    columns = answer.transpose(0, 1).flatten(1).double()
                    outputs[index] += columns @ columns.T / columns.shape[1]
        self._factors = []
        for index, (a, g) in enumerate(zip(inputs, outputs, strict=True)):
            # Grey values fill the mean of the first layer's patches, so there the floor is given.
            a, g = a / count, g / count
            damp = self.floor**2 if index == 0 else _INPUTS * float(a.diagonal()[:-1].mean())
            self._factors.append((_root(a, damp), _root(g, _OUTPUTS * float(g.diagonal().mean()))))

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; :meth:`measure` must have been called."""
        loss = None if closure is None else closure()
        steps: list[tuple[nn.Conv2d, Tensor]] = []
        length = 0.0
        with torch.no_grad():
            for layer, (a, g) in zip(self.layers, self._factors, strict=True):
                gradient = _joined(layer, [p.grad for p in layer.parameters()])
                natural = torch.cholesky_solve(torch.cholesky_solve(gradient, g).T, a).T
                length += float((gradient * natural).sum())
                steps.append((layer, natural))
            share = min(1.0, self.limit / max(length, 1e-300) ** 0.5)
            for group in self.param_groups:
                for layer, natural in steps:
                    state: dict[str, Any] = self.state[layer.weight]
                    step = (share * natural).float()
                    state["velocity"] = self.momentum * state.get("velocity", 0.0) + step
                    layer.weight -= group["lr"] * state["velocity"][:, :-1].reshape(layer.weight.shape)
                    if layer.bias is not None:
                        layer.bias -= group["lr"] * state["velocity"][:, -1]
        return loss


def _joined(layer: nn.Conv2d, parts: Sequence[Tensor | None]) -> Tensor:
    """Gradients of weight and bias as one matrix, (outputs, inputs + 1)."""
    weight, bias = parts
    if weight is None or bias is None:
        raise ValueError(f"{layer} has no gradient; call backward first")
    return torch.cat([weight.flatten(1), bias[:, None]], dim=1).double()


def _root(moment: Tensor, damp: float) -> Tensor:
    """Cholesky factor of a damped second moment."""
    return torch.linalg.cholesky(moment + max(damp, 1e-30) * torch.eye(len(moment)).double())
