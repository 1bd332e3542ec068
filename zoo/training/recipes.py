"""How each denoiser of the zoo is trained."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training besides its data, its length and its seed.

    Arguments:
        network: Id of the denoiser in the zoo.
        intensity: The model's units, as ``ctinv.adapters.parse_intensity`` reads them.
        patch: Side of the patches that the loss compares, in pixels. Low-dose patches have a margin,
            so that the loss never sees the zeros that the convolutions pad.
        batch: Patches per step.
        optimiser: ``sgd`` (with momentum), ``natural`` (the same in the metric of
            :class:`~ctinv.zoo.training.natural.NaturalGradient`) or ``adam``.
        rate: Learning rate at the start; it falls to ``final_rate`` times that along half a cosine.
        final_rate: See ``rate``.
        momentum: For ``sgd`` and ``natural``.
        betas: For ``adam``.
        clip: Largest norm of the gradient over all weights; for ``natural`` in its metric.
        balance: A patch counts by its low dose's root mean squared error to the power ``-2 balance``:
            0 as it is, 1 all alike. Noisy slices teach little about the quiet ones.
        pixel: Weight of the mean squared difference, in units of 100 HU.
        perceptual: Weight of the mean squared difference of features.
        adversarial: Weight of the critic's score; 0 trains without a critic.
        penalty: Weight of the critic's gradient penalty.
        critic_steps: Critic steps per step of the denoiser.
        critic_rate: Learning rate of the critic.
        critic_betas: Of the critic's Adam.
        critic_width: Filters of the critic's first layers.
        critic_hidden: Units of its dense layer.
        warm_up: Share of the steps that use the pixel loss alone, before the critic joins.
        identity: Whether the denoiser starts as the identity; otherwise He's initialisation is used.
    """

    network: str
    intensity: str = "unit:-1024:3072"
    patch: int = 64
    batch: int = 16
    optimiser: Literal["sgd", "natural", "adam"] = "adam"
    rate: float = 1e-3
    final_rate: float = 0.01
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    balance: float = 0.0
    pixel: float = 1.0
    perceptual: float = 0.0
    adversarial: float = 0.0
    penalty: float = 10.0
    critic_steps: int = 4
    critic_rate: float = 1e-4
    critic_betas: tuple[float, float] = (0.5, 0.9)
    critic_width: int = 64
    critic_hidden: int = 1024
    warm_up: float = 0.0
    identity: bool = True


RECIPES = MappingProxyType(
    {
        "chen": Recipe("chen", patch=21, batch=48, rate=5e-4),
        "yang": Recipe(
            "yang",
            patch=64,
            batch=4,
            rate=5e-4,
            warm_up=0.35,
            perceptual=4.0,
            adversarial=0.02,
            critic_steps=1,
            critic_rate=2e-4,
            critic_width=16,
            critic_hidden=128,
        ),
    }
)
"""The recipe of each denoiser, by its id."""
