"""What all trainings share: learning rate, a critic's slope, and the optimiser's state as tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = [
    "gradient_penalty",
    "learning_rate",
    "optimiser_tensors",
    "restore_optimiser",
    "set_rate",
    "state_fits",
]

_ADAM = {"step", "exp_avg", "exp_avg_sq"}


def learning_rate(step: int, steps: int, last: float, warmup: int = 1) -> float:
    """A linear rise, then half a cosine down, as a share of the peak rate.

    Source: I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    https://arxiv.org/abs/1608.03983, without restarts.

    Arguments:
        step: Steps done.
        steps: Steps in all.
        last: Share that is left after the last step.
        warmup: Steps of the rise.

    Example:
        >>> [round(learning_rate(step, 100, 0.02, warmup=10), 3) for step in (0, 10, 50, 100)]
        [0.1, 0.976, 0.51, 0.02]
    """
    fall = last + (1 - last) * 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1, (step + 1) / warmup) * fall


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """Give all parameters one learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """How far a critic is from a slope of 1 between real and generated patches.

    ``mean((|grad critic(m)| - 1)^2)`` over the batch, at points ``m`` on the lines from each generated
    patch to its real one.

    Source: I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville, "Improved training of
    Wasserstein GANs", NeurIPS 2017, https://arxiv.org/abs/1704.00028.

    Arguments:
        critic: Patches (N, ...) to N verdicts, each of which depends on its own patch alone.
        real: Real patches (N, ...), in the critic's units.
        fake: Generated patches of the same shape; no gradient flows into either.
        mix: Share of the real patch in each mixture, (N,), from 0 to 1.

    Returns:
        A scalar that can be differentiated with respect to the critic's weights.

    Example:
        A linear critic has the same slope everywhere:

        >>> weight = torch.tensor([3.0, 4.0])
        >>> gradient_penalty(lambda x: x @ weight, torch.zeros(5, 2), torch.ones(5, 2), torch.rand(5)).item()
        16.0
    """
    share = mix.reshape(-1, *[1] * (real.dim() - 1))
    between = (share * real + (1 - share) * fake).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    # The root of exactly nothing has no derivative.
    norm = (slope.square().flatten(1).sum(1) + 1e-12).sqrt()
    return (norm - 1).square().mean()


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by ``number of the parameter.name``, for :func:`restore_optimiser`.

    PyTorch's own ``flatten_optimizer_state_dict`` loses the memory layout of images with channels last
    when it is put back, and with it the last bits of Adam's fused step.
    """
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def state_fits(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are a state of this Adam's own parameters."""
    parameters, states = _parameters(optimiser), _by_parameter(tensors)
    return all(
        number < len(parameters)
        and set(state) == _ADAM
        and all(v.shape == (parameters[number].shape if k != "step" else ()) for k, v in state.items())
        for number, state in states.items()
    )


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put a state back, laid out in memory as the parameters are: Adam's fused step relies on that.

    Raises:
        RuntimeError: It belongs to other parameters.
    """
    parameters, states = _parameters(optimiser), _by_parameter(tensors)
    for number, state in states.items():
        if number >= len(parameters):
            raise RuntimeError(f"there is no parameter {number}")
        for name, value in state.items():
            if value.shape == parameters[number].shape:
                state[name] = torch.empty_like(parameters[number]).detach().copy_(value)
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})


def _parameters(optimiser: Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _by_parameter(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    return states
