"""Training of the variational autoencoder on low-dose patches, and the weights that ship."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters.errors import CtinvError
from torch import nn

from .presets import VAEConfig
from .vae import VAE

__all__ = ["fit_vae", "load_vae", "save_vae", "shipped_vae"]

Image = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]


def _augmented(image: Image, rng: np.random.Generator) -> Image:
    turned = np.rot90(image, int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def fit_vae(
    images: Sequence[Image],
    config: VAEConfig,
    *,
    seed: int = 0,
    steps: int = 1000,
    batch: int = 32,
    rate: float = 2e-3,
    progress: Progress | None = None,
) -> VAE:
    """Train a VAE on random patches of CT slices, flipped and turned.

    Arguments:
        images: Low-dose slices (H, W) in HU, each at least a patch wide.
        config: Sizes.
        seed: Decides everything random.
        steps: Optimiser steps (Adam, linear warm-up, cosine decay).
        batch: Patches a step.
        rate: Peak learning rate.
        progress: Called with (stage, done, total).

    Raises:
        CtinvError: The loss became infinite or not a number.
    """
    from .fit_flow import draw_places

    rng = np.random.default_rng([seed, 2])
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = VAE(config)
    vae = vae.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(vae.parameters(), lr=rate, betas=(0.9, 0.99))
    p = config.patch
    for step in range(steps):
        places = draw_places(images, batch, p, rng)
        patches = np.stack([_augmented(images[k][i : i + p, j : j + p], rng) for k, i, j in places])
        noise = torch.randn((batch, config.code_dim), generator=generator)
        loss, _ = vae.loss(torch.from_numpy(patches[:, None]), noise)
        if not math.isfinite(loss.item()):
            raise CtinvError(f"the VAE diverged at step {step}; lower its rate or check the data")
        for group in optimiser.param_groups:
            group["lr"] = (
                rate * min(1, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        if progress:
            progress("vae", step + 1, steps)
    return vae.ready()


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
