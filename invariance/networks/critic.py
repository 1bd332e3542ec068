"""The Wasserstein critic that tells patches from their reconstructions, and its training."""

from __future__ import annotations

import itertools
import math

import torch
from ctinv.invariance.infra.training import gradient_penalty
from ctinv.invariance.presets import VAEConfig
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Adversary", "Critic"]

_WIDEST = 8  # most channels, in units of the first layer's
_LAST = 4  # side of the map from which the verdict is read


class Critic(nn.Module):
    """Strided convolutions down to a small map and one number, the higher the more real.

    There is no normalisation over the batch: the gradient penalty looks at each patch alone. A
    conditional critic sees ``f(x)`` at every scale.

    Source: Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, Improved training of Wasserstein GANs,
    NeurIPS 2017, https://arxiv.org/abs/1704.00028

    Arguments:
        config: Sizes.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        guided = int(config.conditional)
        count = max(1, math.ceil(math.log2(config.patch / _LAST)))
        widths = [1] + [config.critic * min(_WIDEST, 2**k) for k in range(count)]
        self.down = nn.ModuleList(
            nn.Conv2d(a + guided, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        side = config.patch // 2**count
        self.verdict = nn.Linear((widths[-1] + guided) * side**2, 1)

    def forward(self, x: Tensor, denoised: Tensor | None = None) -> Tensor:
        """Patches and ``f(x)`` of them (N, 1, p, p) in network units to verdicts (N,)."""
        for layer in self.down:
            x = F.leaky_relu(layer(_beside(x, denoised)), 0.2)
            denoised = None if denoised is None else F.avg_pool2d(denoised, 2)
        verdict: Tensor = self.verdict(_beside(x, denoised).flatten(1))
        return verdict[:, 0]


def _beside(x: Tensor, denoised: Tensor | None) -> Tensor:
    return x if denoised is None else torch.cat([x, denoised], 1)


class Adversary:
    """A critic and its optimiser.

    Arguments:
        config: Sizes and weights.
        rate: Learning rate of Adam.
    """

    def __init__(self, config: VAEConfig, rate: float) -> None:
        self.critic = Critic(config)
        self.rate = rate
        self._penalty = config.penalty
        self.optimiser: torch.optim.Optimizer = torch.optim.Adam([torch.zeros(0)])
        self.to("cpu")

    def to(self, device: str | torch.device) -> None:
        """Move the critic; the optimiser starts anew."""
        self.critic.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(
            self.critic.parameters(), lr=self.rate, betas=(0.5, 0.999), fused=True
        )

    def learn(
        self, real: Tensor, fake: Tensor, denoised: Tensor | None, mix: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of the critic.

        Arguments:
            real: Patches (N, 1, p, p) in network units.
            fake: Their reconstructions (N, 1, p, p).
            denoised: ``f(x)`` of the patches (N, 1, p, p), for a conditional critic.
            mix: See :func:`ctinv.invariance.infra.training.gradient_penalty`.

        Returns:
            The critic's estimate of the distance between real and fake, and the penalty.
        """
        fake = fake.detach()
        guides = None if denoised is None else torch.cat([denoised, denoised])
        verdicts = self.critic(torch.cat([real, fake]), guides)
        distance = verdicts[: len(real)].mean() - verdicts[len(real) :].mean()
        penalty = gradient_penalty(lambda x: self.critic(x, denoised), real, fake, mix)
        self.optimiser.zero_grad()
        (self._penalty * penalty - distance).backward()
        self.optimiser.step()
        return distance.detach(), penalty.detach()

    def loss(self, fake: Tensor, denoised: Tensor | None) -> Tensor:
        """What the reconstructions lose by the critic's verdict; its weights get no gradient."""
        self.critic.requires_grad_(False)
        try:
            return -self.critic(fake, denoised).mean()
        finally:
            self.critic.requires_grad_(True)
