"""Training of the variational autoencoder on low-dose patches, its files, and the weights that ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.networks.resnet import ResNetEncoder
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import VAEConfig
from torch import Tensor

from .vae_loop import VAELoop

__all__ = [
    "fit_vae",
]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def fit_vae(
    images: Sequence[Image],
    config: VAEConfig,
    *,
    denoised: Sequence[Image] | None = None,
    seed: int = 0,
    steps: int = 1000,
    batch: int = 32,
    rate: float = 2e-3,
    encoder_weights: str | Path | None = None,
    perceptual: Callable[[Tensor], Tensor] | None = None,
    device: str = "cpu",
    half: bool = False,
    checkpoint: Checkpoint | None = None,
    every: int = 500,
    progress: Progress | None = None,
) -> VAE:
    """Train a VAE on random patches of CT slices, flipped and turned.

    Arguments:
        images: Low-dose slices (H, W) in HU, each at least a patch wide.
        config: Sizes and weights of the losses.
        denoised: ``f(x)`` of the slices in HU; a conditional VAE needs it.
        seed: Decides everything random.
        steps: Optimiser steps (Adam, linear warm-up, cosine decay).
        batch: Patches a step.
        rate: Peak learning rate; the critic's is four times as high.
        encoder_weights: File of ImageNet weights for a residual encoder to start from, see
            :meth:`ctinv.invariance.networks.resnet.ResNetEncoder.load_photographs`.
        perceptual: Features of patches (N, 1, p, p) in HU whose mean absolute distance is added
            with the weight ``config.perceptual``, for example VGG's.
        device: Where to train; what comes back lies on the CPU.
        half: Whether to compute in bfloat16 where that is safe.
        checkpoint: Where to keep the state every ``every`` steps. A training that was interrupted
            goes on from there and, on the CPU, ends with the same weights, bit by bit.
        every: Steps between two checkpoints.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: The loss became infinite or not a number, or the arguments do not fit the sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = VAE(config)
        if encoder_weights is not None:
            if not isinstance(vae.encoder, ResNetEncoder):
                raise CtinvError("encoder_weights need a residual encoder; set vae.encoder=resnet50")
            vae.encoder.load_photographs(encoder_weights)
        loop = VAELoop(
            images,
            vae,
            denoised=denoised,
            perceptual=perceptual,
            seed=seed,
            steps=steps,
            batch=batch,
            rate=rate,
            device=device,
            half=half,
        )
    if checkpoint is not None and (found := checkpoint.load()) is not None and not loop.resume(*found):
        checkpoint.ignore("its contents do not fit")
    while loop.step < steps:
        loop.advance()
        if checkpoint is not None and (loop.step % every == 0 or loop.step == steps):
            checkpoint.save(*loop.state())
        if progress:
            progress("vae", loop.step, steps)
    return vae.to("cpu").ready()
