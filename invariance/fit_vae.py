"""Training of the variational autoencoder on low-dose patches, its files, and the weights that ship."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.base import Denoiser
from ctinv.adapters.errors import CtinvError
from torch import Tensor

from .checkpoints import Checkpoint
from .encoders import ResNetEncoder
from .presets import VAEConfig
from .vae import VAE
from .vae_loop import VAELoop

__all__ = ["denoised_slices", "fit_vae", "load_vae", "save_vae", "shipped_vae"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def denoised_slices(denoiser: Denoiser, images: Sequence[Image]) -> list[Image]:
    """``f(x)`` of slices (H, W) in HU, slice by slice."""
    return [np.asarray(denoiser.denoise(image[None, None]), np.float32)[0, 0] for image in images]


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
            :meth:`ctinv.invariance.encoders.ResNetEncoder.load_photographs`.
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


def save_vae(vae: VAE, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Write weights as safetensors; the sizes and ``metadata`` go into the header as JSON."""
    import dataclasses

    from safetensors.torch import save_file

    header = {"config": json.dumps(dataclasses.asdict(vae.config))}
    header.update({k: json.dumps(v) for k, v in (metadata or {}).items()})
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, path, metadata=header)


def load_vae(path: Path) -> VAE:
    """Read what :func:`save_vae` wrote.

    Raises:
        CtinvError: The file is missing or of another kind.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stored:
            vae = VAE(VAEConfig(**json.loads(stored.metadata()["config"])))
            vae.load_state_dict({k: stored.get_tensor(k) for k in stored.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise CtinvError(f"{path} holds no readable VAE ({error}); fit one again") from error
    return vae.ready()


def shipped_vae(config: VAEConfig) -> VAE | None:
    """The pretrained VAE of exactly these sizes that comes with the package, or None."""
    folder = resources.files("ctinv.invariance") / "weights"
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".safetensors"):
            with resources.as_file(entry) as path:
                vae = load_vae(path)
            if vae.config == config:
                return vae
    return None
