"""The loop that trains an autoencoder, step by step, and can be interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.randomness import Purpose, generator, rng
from ctinv.invariance.infra.training import (
    learning_rate,
    optimiser_tensors,
    restore_optimiser,
    set_rate,
    state_fits,
)
from ctinv.invariance.networks.biggan import BigGANDecoder
from ctinv.invariance.networks.critic import Adversary
from ctinv.invariance.networks.vae import VAE
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["VAELoop", "VAETraining"]

_WARMUP = 50
_LAST = 0.01  # share of the peak rate that is left in the end
_CRITIC_RATE = 4.0  # in units of the autoencoder's

Features = Callable[[Tensor], Tensor]
State = dict[str, Tensor]


@dataclass(frozen=True)
class VAETraining:
    """How an autoencoder is trained.

    Arguments:
        steps: Optimiser steps (Adam, linear warm-up, cosine decay); they shape the learning rate.
        batch: Patches a step.
        rate: Peak learning rate; the critic's is four times as high.
        seed: Decides everything random.
        device: Where to train, such as ``cuda:0``.
        half: Whether to compute in bfloat16 where that is safe.
        every: Steps between two checkpoints.
    """

    steps: int = 1000
    batch: int = 32
    rate: float = 2e-3
    seed: int = 0
    device: str = "cpu"
    half: bool = False
    every: int = 500


class VAELoop:
    """One training: everything that the next step depends on.

    The loss is the negative evidence lower bound of :meth:`ctinv.invariance.networks.vae.VAE.loss`, and where
    the weights ask for them the critic's verdict and the distance in given features. A step runs
    the networks once: the critic learns from the very reconstructions that it then judges.

    Arguments:
        images: Low-dose slices (H, W) in HU.
        vae: The network, changed in place.
        denoised: ``f(x)`` of the slices in HU, for a conditional autoencoder.
        training: Steps, rates and the device.
        perceptual: Features of patches (N, 1, p, p) in HU.
    """

    def __init__(
        self,
        images: Sequence[Image],
        vae: VAE,
        training: VAETraining,
        *,
        denoised: Sequence[Image] | None = None,
        perceptual: Features | None = None,
    ) -> None:
        config = vae.config
        if config.conditional != (denoised is not None):
            raise CtinvError(
                "a conditional VAE learns from f(x) too; give it as denoised, and to no other VAE"
            )
        if (config.perceptual > 0) != (perceptual is not None):
            raise CtinvError(
                "a perceptual loss needs both a weight (vae.perceptual) and features; give both or neither"
            )
        self.vae, self._config, self.step = vae, config, 0
        self._images, self._denoised, self._perceptual = images, denoised, perceptual
        self._steps, self._batch, self._rate = training.steps, training.batch, training.rate
        self._device, self._half = torch.device(training.device), training.half
        self._rng = rng(training.seed, Purpose.VAE_PATCHES)
        self._generator = generator(training.seed, Purpose.VAE_NOISE)
        self.adversary = Adversary(config, _CRITIC_RATE * training.rate) if config.critic else None
        if isinstance(vae.decoder, BigGANDecoder):
            vae.decoder.normalise_spectrum()
        vae.requires_grad_(True).train()
        vae.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._normalised = [m for m in vae.modules() if parametrize.is_parametrized(m, "weight")]
        betas = (0.5, 0.999) if self.adversary else (0.9, 0.99)
        self._optimiser = torch.optim.Adam(vae.parameters(), lr=training.rate, betas=betas, fused=True)
        if self.adversary:
            self.adversary.to(self._device)

    def advance(self) -> dict[str, float]:
        """One step.

        Returns:
            ``loss``, ``rmse`` (HU), and with a critic ``distance`` and ``penalty``.

        Raises:
            CtinvError: The loss became infinite or not a number; the autoencoder's weights stay as they were.
        """
        x, guide = self._patches()
        noise = self._random(torch.randn, len(x), self._config.code_dim)
        loss, image = self._forward(x, guide, noise)
        with torch.no_grad():
            losses = {"rmse": (image - x).square().mean().sqrt()}
        if self._perceptual is not None:
            distance = (self._perceptual(image) - self._perceptual(x)).abs().mean()
            loss = loss + self._config.perceptual * distance
        factor = learning_rate(self.step, self._steps, _LAST, _WARMUP)
        if self.adversary:
            units = [None if part is None else self.vae.normalised(part) for part in (x, image, guide)]
            real, fake, seen = units
            assert real is not None
            assert fake is not None
            mix = self._random(torch.rand, len(x))
            self._refuse(loss)
            set_rate(self.adversary.optimiser, factor * self.adversary.rate)
            losses["distance"], losses["penalty"] = self.adversary.learn(real, fake, seen, mix)
            loss = loss + self._config.adversarial * self.adversary.loss(fake, seen)
        self._refuse(loss)
        set_rate(self._optimiser, factor * self._rate)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self._optimiser.step()
        self.step += 1
        return {"loss": loss.item()} | {name: value.item() for name, value in losses.items()}

    def _forward(self, x: Tensor, guide: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        with parametrize.cached():
            # The power iteration turns once a step, and in full precision.
            for module in self._normalised:
                _ = module.weight
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                return self.vae.loss(x, noise, guide)

    def _refuse(self, loss: Tensor) -> None:
        if not math.isfinite(loss.item()):
            raise CtinvError(f"the VAE diverged at step {self.step}; lower its rate or check the data")

    def _random(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        return draw(shape, generator=self._generator).to(self._device)

    def _patches(self) -> tuple[Tensor, Tensor | None]:
        """Random patches (N, 1, p, p) in HU, flipped and turned, and ``f(x)`` of them."""
        from .patches import draw_places

        p, rng, drawn = self._config.patch, self._rng, []
        for k, i, j in draw_places(self._images, self._batch, p, rng):
            kinds = [self._images[k]] if self._denoised is None else [self._images[k], self._denoised[k]]
            both = np.stack([kind[i : i + p, j : j + p] for kind in kinds])
            turned = np.rot90(both, int(rng.integers(4)), (1, 2))
            drawn.append(turned[:, :, ::-1] if rng.random() < 0.5 else turned)
        patches = torch.from_numpy(np.stack(drawn)).to(self._device)
        return patches[:, :1], patches[:, 1:] if self._denoised is not None else None

    # -- to and from a checkpoint ---------------------------------------------------------------

    def state(self) -> tuple[State, dict[str, Any]]:
        """Tensors and plain numbers from which :meth:`resume` goes on."""
        tensors: State = {"generator": self._generator.get_state()}
        for kind, module, optimiser in self._learners():
            tensors |= {f"{kind}.{name}": value for name, value in module.state_dict().items()}
            tensors |= {f"adam.{kind}.{name}": v for name, v in optimiser_tensors(optimiser).items()}
        return tensors, {"step": self.step, "rng": self._rng.bit_generator.state}

    def resume(self, tensors: State, facts: dict[str, Any]) -> bool:
        """Take over a state; False, and nothing has changed, where it is not one of this training."""
        expected = {"generator": self._generator.get_state().shape}
        for kind, module, _ in self._learners():
            expected |= {f"{kind}.{name}": value.shape for name, value in module.state_dict().items()}
        given = {name: value.shape for name, value in tensors.items() if not name.startswith("adam.")}
        adams = {kind: _within(tensors, f"adam.{kind}.") for kind, *_ in self._learners()}
        if given != expected or set(facts) != {"step", "rng"}:
            return False
        if not all(state_fits(optimiser, adams[kind]) for kind, _, optimiser in self._learners()):
            return False
        for kind, module, optimiser in self._learners():
            module.load_state_dict({name: tensors[f"{kind}.{name}"] for name in module.state_dict()})
            restore_optimiser(optimiser, adams[kind])
        self._generator.set_state(tensors["generator"])
        self._rng.bit_generator.state = facts["rng"]
        self.step = int(facts["step"])
        return True

    def _learners(self) -> list[tuple[str, nn.Module, torch.optim.Optimizer]]:
        learners: list[tuple[str, nn.Module, torch.optim.Optimizer]] = [("vae", self.vae, self._optimiser)]
        if self.adversary:
            learners.append(("critic", self.adversary.critic, self.adversary.optimiser))
        return learners


def _within(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
