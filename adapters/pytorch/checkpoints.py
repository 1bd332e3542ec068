"""Read weight files: tensors, and nothing that could run."""

from __future__ import annotations

import importlib
import pickle
import re
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctinv.adapters.errors import ModelError

__all__ = ["read_checkpoint", "read_safetensors"]


_UNKNOWN = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_MOST_NAMES = 100  # classes that one file may name
_HARMLESS, _DENSEST = 2**27, 20  # bytes that any archive may unfold into, or for each of its own


def _inert(name: str) -> Any:
    """In the place of a class or function that a checkpoint names: makes an empty mapping, does nothing.

    A mapping, because settings often are one, and torch fills in no others than its own kinds.
    """

    class Inert:
        def __new__(cls, *_args: Any, **_kwargs: Any) -> Any:
            return OrderedDict()

    Inert.__qualname__ = f"Inert[{name}]"
    return Inert


def _harmless() -> dict[str, Any]:
    """Plain numbers and arrays of numpy, which trainers save as scores."""
    core = np.zeros(0).__reduce__()[0].__module__  # numpy.core or numpy._core, by numpy's version
    multiarray = importlib.import_module(core)
    harmless: dict[str, Any] = {"numpy.dtype": np.dtype, "numpy.ndarray": np.ndarray}
    for place in ("numpy.core.multiarray", "numpy._core.multiarray"):
        harmless[f"{place}.scalar"] = multiarray.scalar
        harmless[f"{place}._reconstruct"] = multiarray._reconstruct
    return harmless


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
    _refuse_bomb(path)
    try:
        content = _loaded(path)
    except (pickle.UnpicklingError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{path} holds more than tensors (code is never unpickled) or is damaged; "
            "save model.state_dict() alone, or safetensors"
        ) from error
    except Exception as error:  # of a damaged file torch raises almost anything
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{path} is not a weight file saved by torch ({text[0]})") from error
    if isinstance(content, list | tuple):  # weights with other things behind them
        content = {str(place): item for place, item in enumerate(content)}
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {type(content).__name__}, not a state dict; save model.state_dict()")
    return content


def _loaded(path: Path) -> Any:
    """What is in a file that ``torch.save`` wrote, in the form of today or that before torch 1.6."""
    if zipfile.is_zipfile(path):
        return _with_inert(path, torch.serialization.get_unsafe_globals_in_checkpoint(path))
    foreign: list[str] = []
    while True:  # the older form tells the names that it needs one at a time
        try:
            return _with_inert(path, foreign)
        except pickle.UnpicklingError as error:
            name = _UNKNOWN.search(str(error))
            if name is None or name.group(1) in foreign or len(foreign) >= _MOST_NAMES:
                raise
            foreign.append(name.group(1))


def _with_inert(path: Path, foreign: list[str]) -> Any:
    harmless = _harmless()
    known: list[Any] = [(harmless.get(name) or _inert(name), name) for name in foreign]
    types = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type)]
    with torch.serialization.safe_globals([*known, *types]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that would unfold into far more than it holds; torch itself packs nothing.

    Raises:
        ModelError: So it is.
    """
    with suppress(OSError, zipfile.BadZipFile, ValueError), zipfile.ZipFile(path) as archive:
        unfolded = sum(entry.file_size for entry in archive.infolist())
        if unfolded > max(_HARMLESS, _DENSEST * path.stat().st_size):
            raise ModelError(
                f"{path} would unfold into {unfolded / 1e9:.1f} GB, far more than it holds; save it anew"
            )
