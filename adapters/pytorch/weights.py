"""Fill a module's weights from a file, without ever running what a pickle holds."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from ctinv.adapters.errors import ModelError
from torch import nn

__all__ = ["fill"]

_NESTS = ("state_dict", "model_state_dict", "params_ema", "params", "model", "net", "generator")
_WRAPPERS = ("module.", "_orig_mod.")


def fill(module: nn.Module, path: Path) -> tuple[list[str], dict[str, str]]:
    """Load weights, all of them and no others.

    Arguments:
        module: Changed in place.
        path: safetensors, or a state dict saved by ``torch.save``, bare or under a usual key such
            as ``state_dict``; the prefixes ``module.`` and ``_orig_mod.`` are taken off.

    Returns:
        Notices about what was found in the file, and its metadata (safetensors only).

    Raises:
        ModelError: The file is missing, is not weights, or does not fit.
    """
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}; check weights=")
    notes: list[str] = []
    told: dict[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        weights, told = _safetensors(path)
    else:
        weights = _state_dict(path, notes)
    for prefix in _WRAPPERS:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    foreign = [key for key in weights if key not in own]
    if missing or foreign:
        raise ModelError(
            f"{path} does not fit {type(module).__name__}: "
            + "; ".join(
                f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
                for keys, what in ((missing, "missing"), (foreign, "unknown"))
                if keys
            )
        )
    for key, value in own.items():
        if isinstance(value, torch.Tensor) and value.shape != weights[key].shape:
            raise ModelError(
                f"{path} does not fit {type(module).__name__}: {key} is {tuple(weights[key].shape)} in "
                f"the file and {tuple(value.shape)} in the network"
            )
    module.load_state_dict(weights)
    return notes, told


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return weights, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); copy or save it again"
        ) from error


def _state_dict(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors (code is never unpickled) or is damaged; "
            "save model.state_dict() alone, or safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{path} is not a weight file saved by torch ({text[0]})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}, not a state dict; save model.state_dict()")
    nests = [key for key in _NESTS if isinstance(found.get(key), dict)]
    if nests:
        found = found[nests[0]]
        notes.append(f"weights are taken from {nests[0]!r} in {path.name}")
    return {str(key): value for key, value in found.items()}
