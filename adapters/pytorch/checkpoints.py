"""Read weight files: tensors, and nothing that could run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from ctinv.adapters.errors import ModelError

__all__ = ["read_checkpoint", "read_safetensors"]


class _Inert(dict[Any, Any]):
    """In the place of whatever class or function a checkpoint names: takes anything, does nothing."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        return

    def __hash__(self) -> int:  # type: ignore[override]  # may stand among the keys of a mapping
        return id(self)


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata.

    Raises:
        ModelError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return weights, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); copy or save it again"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The mapping that ``torch.save`` wrote, tensors inside.

    Beside weights, trainers write settings and progress as objects of their own. Torch names them
    without making them, and each is read as something inert that holds nothing.

    Raises:
        ModelError: The file cannot be read, or is no mapping.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        # One class for each name: torch compares what it may call by identity.
        inert: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in foreign]
        with torch.serialization.safe_globals(inert):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{path} holds more than tensors (code is never unpickled) or is damaged; "
            "save model.state_dict() alone, or safetensors"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{path} is not a weight file saved by torch ({text[0]})") from error
    if isinstance(found, _Inert):
        raise ModelError(
            f"{path} holds a whole model (code is never unpickled); save model.state_dict() alone"
        )
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}, not a state dict; save model.state_dict()")
    return found
