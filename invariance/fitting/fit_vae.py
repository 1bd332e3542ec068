"""Training of the variational autoencoder on low-dose patches, its files, and the weights that ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.checkpoints import Checkpoint
from ctinv.invariance.infra.randomness import Purpose, torch_seed
from ctinv.invariance.networks.resnet import ResNetEncoder
from ctinv.invariance.networks.vae import VAE
from ctinv.invariance.presets import VAEConfig
from torch import Tensor

from .vae_loop import VAELoop, VAETraining

__all__ = [
    "fit_vae",
]


def fit_vae(
    images: Sequence[Image],
    config: VAEConfig,
    training: VAETraining,
    *,
    denoised: Sequence[Image] | None = None,
    encoder_weights: str | Path | None = None,
    perceptual: Callable[[Tensor], Tensor] | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> VAE:
    """Train a VAE on random patches of CT slices, flipped and turned.

    Arguments:
        images: Low-dose slices (H, W) in HU, each at least a patch wide.
        config: Sizes and weights of the losses.
        training: Steps, rates and the device; what comes back lies on the CPU.
        denoised: ``f(x)`` of the slices in HU; a conditional VAE needs it.
        encoder_weights: File of ImageNet weights for a residual encoder to start from, see
            :meth:`ctinv.invariance.networks.resnet.ResNetEncoder.load_photographs`.
        perceptual: Features of patches (N, 1, p, p) in HU whose mean absolute distance is added
            with the weight ``config.perceptual``, for example VGG's.
        checkpoint: Where to keep the state every ``training.every`` steps. A training that was interrupted
            goes on from there and, on the CPU, ends with the same weights, bit by bit.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: The loss became infinite or not a number, or the arguments do not fit the sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(training.seed, Purpose.VAE_WEIGHTS))
        vae = VAE(config)
        if encoder_weights is not None:
            if not isinstance(vae.encoder, ResNetEncoder):
                raise CtinvError("encoder_weights need a residual encoder; set vae.encoder=resnet50")
            vae.encoder.load_photographs(encoder_weights)
        loop = VAELoop(images, vae, training, denoised=denoised, perceptual=perceptual)
    if checkpoint is not None and (point := checkpoint.load()) is not None and not loop.resume(*point):
        checkpoint.ignore("its contents do not fit")
    while loop.step < training.steps:
        loop.advance()
        if checkpoint is not None and (loop.step % training.every == 0 or loop.step == training.steps):
            checkpoint.save(*loop.state())
        if progress:
            progress("vae", loop.step, training.steps)
    return vae.to("cpu").ready()
