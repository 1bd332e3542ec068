"""What a training of a denoiser keeps: its state while it lasts, and the weights in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ctinv.adapters.errors import ModelError
from ctinv.invariance.infra.checkpoints import read_state, write_state
from ctinv.invariance.infra.files import write_files
from ctinv.invariance.infra.training import optimiser_tensors, restore_optimiser
from torch import Tensor

__all__ = ["read_checkpoint", "restore", "snapshot", "write_checkpoint", "write_weights"]

_FILE = "checkpoint.safetensors"
_SCHEMA = 2  # 1 drew other random numbers


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Save the state after ``step`` steps; the one before stays valid until the new one is whole.

    Arguments:
        folder: Where; it must exist.
        step: Steps done.
        tensors: The state.
        about: What the state belongs to; anything that JSON can hold.

    Raises:
        ModelError: The folder cannot be written.
    """
    try:
        write_state(folder / _FILE, tensors, {"schema": _SCHEMA, "step": step, "about": dict(about)})
    except OSError as err:
        raise ModelError(f"{folder / _FILE} cannot be written ({err}); make room, or choose another") from err


def read_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The last checkpoint in a folder: steps done, state, and what it belongs to; None where there is none.

    Raises:
        ModelError: There is one but it is damaged, or of another version.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        tensors, facts = read_state(path.read_bytes())
        if facts["schema"] != _SCHEMA:
            raise ValueError(f"version {facts['schema']}")
        return int(facts["step"]), tensors, dict(facts["about"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelError(
            f"the checkpoint {path} is damaged ({err}); train into another folder or with resume=False"
        ) from err


def snapshot(
    modules: Mapping[str, torch.nn.Module], optimisers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The state of networks and optimisers as flat tensors."""
    states = {name: module.state_dict() for name, module in modules.items()}
    states |= {name: optimiser_tensors(optimiser) for name, optimiser in optimisers.items()}
    return {f"{name}/{key}": value for name, state in states.items() for key, value in state.items()}


def restore(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, torch.nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put a :func:`snapshot` back.

    Raises:
        ModelError: It belongs to other networks.
    """

    def own(name: str) -> dict[str, Tensor]:
        return {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}

    try:
        for name, module in modules.items():
            module.load_state_dict(own(name))
        for name, optimiser in optimisers.items():
            restore_optimiser(optimiser, own(name))
    except RuntimeError as err:
        raise ModelError("the checkpoint belongs to other networks; train into another folder") from err


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a weight file whose bytes depend on its content alone.

    Arguments:
        path: The file; it appears whole or not at all.
        tensors: The weights.
        metadata: What the file says about itself.

    Raises:
        CtinvError: The file cannot be written.
    """
    from safetensors.torch import save

    data = save({k: v.detach().contiguous() for k, v in tensors.items()}, metadata=dict(metadata))
    # The library writes the metadata in a random order; the format is an 8-byte length, JSON and the numbers.
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    whole = len(header).to_bytes(8, "little") + header + data[8 + size :]
    write_files(path.parent, {path.name: whole})
