"""The autoencoder's files, and the weights that ship."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path
from typing import Any

from ctinv.adapters.errors import CtinvError
from ctinv.invariance.presets import VAEConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .vae import VAE

__all__ = ["load_vae", "save_vae", "shipped_vae"]


def save_vae(vae: VAE, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Write weights as safetensors; the sizes and ``metadata`` go into the header as JSON."""

    header = {"config": json.dumps(dataclasses.asdict(vae.config))}
    header.update({k: json.dumps(v) for k, v in (metadata or {}).items()})
    save_file({k: v.contiguous() for k, v in vae.state_dict().items()}, path, metadata=header)


def load_vae(path: Path) -> VAE:
    """Read what :func:`save_vae` wrote.

    Raises:
        CtinvError: The file is missing or of another kind.
    """

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
