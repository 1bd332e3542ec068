"""The loss of a Wasserstein critic."""

from __future__ import annotations

from collections.abc import Callable

import torch
from ctinv.invariance.infra.training import gradient_penalty
from torch import Tensor

__all__ = ["critic_loss"]


def critic_loss(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    weight: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What the critic minimises: generated minus real scores, plus ``weight`` times the gradient penalty."""
    mix = torch.rand(len(real), generator=generator, dtype=real.dtype).to(real.device)
    gap = critic(fake.detach()).mean() - critic(real).mean()
    return gap + weight * gradient_penalty(critic, real, fake, mix)
