"""The losses of a Wasserstein GAN with gradient penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["critic_loss", "gradient_penalty"]


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """How far the critic is from a slope of 1 between real and generated patches.

    ``mean((|grad critic(m)| - 1)^2)`` over the batch, at points ``m`` drawn uniformly on the lines
    from each generated patch to its real one.

    Arguments:
        critic: Maps (N, ...) to N scores, each of which depends on its own patch alone.
        real: Real patches (N, ...), model units.
        fake: Generated patches of the same shape; no gradient flows into either.
        generator: Source of the random points.

    Returns:
        A scalar that can be differentiated with respect to the critic's weights.

    References:
        I. Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017.

    Example:
        A linear critic has the same slope everywhere:

        >>> weight = torch.tensor([3.0, 4.0])
        >>> gradient_penalty(lambda x: x @ weight, torch.zeros(5, 2), torch.ones(5, 2)).item()
        16.0
    """
    share = torch.rand(len(real), generator=generator, dtype=real.dtype).to(real.device)
    share = share.reshape(-1, *[1] * (real.dim() - 1))
    mixed = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1).square().mean()


def critic_loss(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    weight: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What the critic minimises: generated minus real scores, plus ``weight`` times the gradient penalty."""
    gap = critic(fake.detach()).mean() - critic(real).mean()
    return gap + weight * gradient_penalty(critic, real, fake, generator)
