"""Checkpoints of a training: a safetensors file and the JSON that names it, swapped in whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ctinv.adapters.errors import ModelError
from ctinv.zoo.exporting import write_atomic
from torch import Tensor

__all__ = ["read_checkpoint", "restore", "snapshot", "write_checkpoint", "write_weights"]

_INDEX = "checkpoint.json"


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
        OSError: The folder cannot be written.
    """
    from safetensors.torch import save

    name = f"checkpoint-{step:08d}.safetensors"
    write_atomic(folder / name, save({key: value.detach().contiguous() for key, value in tensors.items()}))
    index = {"schema": 1, "step": step, "tensors": name, "about": dict(about)}
    write_atomic(folder / _INDEX, json.dumps(index, indent=2, sort_keys=True).encode())
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The last checkpoint in a folder: steps done, state, and what it belongs to; None where there is none.

    Raises:
        ModelError: There is one but it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / _INDEX
    if not path.exists():
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(folder / Path(index["tensors"]).name)
        return int(index["step"]), dict(tensors), dict(index["about"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as err:
        raise ModelError(
            f"the checkpoint {path} is damaged ({err}); train into another folder or with resume=False"
        ) from err


def snapshot(
    modules: Mapping[str, torch.nn.Module], optimisers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """The state of networks and optimisers as flat tensors."""
    tensors = {
        f"{name}/{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for name, optimiser in optimisers.items():
        for index, state in optimiser.state_dict()["state"].items():
            for key, value in state.items():
                if value is not None:
                    tensors[f"{name}/{index}/{key}"] = torch.as_tensor(value)
    return tensors


def restore(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, torch.nn.Module],
    optimisers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Put a :func:`snapshot` back.

    Raises:
        ModelError: It belongs to other networks.
    """
    try:
        for name, module in modules.items():
            own = {
                key.split("/", 1)[1]: value for key, value in tensors.items() if key.startswith(f"{name}/")
            }
            module.load_state_dict(own)
    except RuntimeError as err:
        raise ModelError("the checkpoint belongs to other networks; train into another folder") from err
    for name, optimiser in optimisers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}/"):
                _, index, entry = key.split("/")
                state.setdefault(int(index), {})[entry] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a weight file whose bytes depend on its content alone.

    Arguments:
        path: The file; it appears whole or not at all.
        tensors: The weights.
        metadata: What the file says about itself.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.torch import save

    data = save({k: v.detach().contiguous() for k, v in tensors.items()}, metadata=dict(metadata))
    # The library writes the metadata in a random order; the format is an 8-byte length, JSON and the numbers.
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    write_atomic(path, len(header).to_bytes(8, "little") + header + data[8 + size :])
