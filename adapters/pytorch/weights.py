"""Fill a module's weights from a file, without ever running what a pickle holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ctinv.adapters.errors import ModelError
from torch import nn

from .checkpoints import read_checkpoint, read_safetensors
from .keys import COUNTER, Needs, refuse_unfinite

__all__ = ["fill"]

# Averaged weights come first: they are the ones that papers report.
_NESTS = (
    *("params_ema", "model_ema", "state_dict_ema", "ema_state_dict", "netG_ema", "G_ema", "g_ema", "ema"),
    *(
        "state_dict",
        "model_state_dict",
        "model_state",
        "params",
        "model",
        "net",
        "network",
        "netG",
        "generator",
    ),
    *("G", "g", "denoiser", "weights"),
)
_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Older and newer names of the parts of a normalised weight: by its length, and by its spectrum.
_NORMS = (
    ("weight_g", "parametrizations.weight.original0"),
    ("weight_v", "parametrizations.weight.original1"),
    ("weight_orig", "parametrizations.weight.original"),
    ("weight_u", "parametrizations.weight.0._u"),
    ("weight_v", "parametrizations.weight.0._v"),
)
_AVERAGED = "n_averaged"  # how many weights an averaged model is the mean of
_DEEP = 4

Weights = dict[str, Any]


class _Fit(NamedTuple):
    """Weights under the module's own keys, and what was left aside to get them.

    Arguments:
        weights: By the module's own keys.
        aside: Keys without a place that decide nothing.
        prefix: What was taken off the keys.
        left: Entries without the prefix.
        rivals: Other prefixes that would fit.
    """

    weights: Weights
    aside: list[str]
    prefix: str = ""
    left: int = 0
    rivals: Sequence[str] = ()


def fill(module: nn.Module, path: Path) -> tuple[list[str], dict[str, str]]:
    """Load weights: all that the module has.

    Arguments:
        module: Changed in place.
        path: safetensors, or a checkpoint saved by ``torch.save``: a state dict, bare or somewhere
            inside, such as under ``state_dict`` or ``params_ema``. A prefix that all of the module's
            keys share is taken off, or put before them, and what wrappers put into keys, such as
            ``module.`` and ``_orig_mod.``, is taken out; of normalised weights
            both the older and the newer names are read. Buffers that a network computes, and counters
            of batches, may be missing; what profilers and older versions left beside is passed over.

    Returns:
        Notices about what was found in the file, and its metadata (safetensors only).

    Raises:
        ModelError: The file is missing, is not weights, or does not fit.
    """
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}; check weights=")
    told: dict[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        content, told = read_safetensors(path)
    else:
        content = read_checkpoint(path)
    nests = list(_nests(content, ""))
    if not nests:
        raise ModelError(
            f"{path} holds more than tensors (code is never unpickled) and no state dict; "
            "save model.state_dict() alone"
        )
    needs = Needs(module)
    fitting = [(where, fit) for where, weights in nests if (fit := _fitted(needs, weights)) is not None]
    if not fitting:
        raise _misfit(module, path, needs, nests)
    where, fit = fitting[0]
    try:
        with torch.no_grad():
            for key in needs.fleeting.keys() & fit.weights.keys():
                needs.fleeting[key].copy_(fit.weights[key])
        module.load_state_dict({**needs.own, **fit.weights}, strict=False)
    except Exception as error:  # a module's own way to load may refuse what looks right
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{path} cannot be filled into {type(module).__name__} ({text[-1].strip()}); save it anew "
            "with the network's present code"
        ) from error
    refuse_unfinite(module, str(path), fit.weights)
    notes = []
    if where:
        others = [other for other, _ in fitting[1:]]
        also = f" ({', '.join(map(repr, others))} would fit too)" if others else ""
        notes.append(f"weights are taken from {where!r} in {path.name}{also}")
    if fit.prefix:
        rest = f"; {fit.left} entries without it are left aside" if fit.left else ""
        rest += f" ({', '.join(map(repr, fit.rivals))} would fit too)" if fit.rivals else ""
        notes.append(f"the keys of {path.name} all begin with {fit.prefix!r}, which is taken off{rest}")
    notes.extend(_told_of_keys(path.name, needs, fit))
    return notes, told


def _nests(content: Any, where: str, depth: int = 0) -> Iterator[tuple[str, Weights]]:
    """Every mapping of names to tensors in a checkpoint, with the path to it, the likeliest first."""
    if not isinstance(content, Mapping) or depth > _DEEP:
        return
    values = {
        str(key): _tensor(value)
        for key, value in content.items()
        if not isinstance(value, Mapping) or str(key).endswith("_extra_state")
    }
    if any(isinstance(value, torch.Tensor) for value in values.values()):
        yield where, values
    keys = [str(key) for key in content if isinstance(content[key], Mapping)]
    keys.sort(key=lambda key: _NESTS.index(key) if key in _NESTS else len(_NESTS))
    for key in keys:
        if not key.startswith("optim"):
            yield from _nests(content.get(key), f"{where}.{key}" if where else key, depth + 1)


def _tensor(value: Any) -> Any:
    """An array of numbers as a tensor; anything else as it is."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value


def _fitted(needs: Needs, weights: Weights) -> _Fit | None:
    """How a mapping fits a network; None where it does not."""
    weights = _bared(needs.own, weights)
    tried = {prefix: _inside(needs, weights, prefix) for prefix in _prefixes(needs, weights)}
    fits = {prefix: fit for prefix, fit in tried.items() if fit is not None}
    if not fits:
        lacking = _common(needs.own)
        return _inside(needs, {f"{lacking}{key}": value for key, value in weights.items()}, "")
    prefix, *rivals = fits
    left = sum(not key.startswith(prefix) for key in weights)
    return fits[prefix]._replace(prefix=prefix, left=left, rivals=rivals if prefix else [])


def _common(own: Weights) -> str:
    """The name of the part that holds all that a module has, with its dot; empty where several do."""
    heads = {key.partition(".")[0] for key in own if "." in key}
    return f"{heads.pop()}." if len(heads) == 1 and all("." in key for key in own) else ""


def _inside(needs: Needs, weights: Weights, prefix: str) -> _Fit | None:
    """What stands behind a prefix, under the module's own keys; None where it does not fit."""
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    named = _renamed(needs.own, inside)
    taken = needs.taken(named)
    if needs.missing(taken) or needs.foreign(named) or needs.unlike(taken) is not None:
        return None
    return _Fit(taken, needs.aside(named))


def _bared(own: Weights, weights: Weights) -> Weights:
    """Weights without what wrappers put beside them and into their keys, unless the module itself says so."""
    if _AVERAGED not in own:
        weights = {key: value for key, value in weights.items() if key != _AVERAGED}
    said = any(wrapper in key for key in own for wrapper in _WRAPPERS)
    return weights if said else {_bare(key): value for key, value in weights.items()}


def _prefixes(needs: Needs, weights: Weights) -> list[str]:
    """What may stand before the module's keys in a file: nothing, averaged weights, then the likeliest."""
    first = needs.first()
    ends = {first} | {first.replace(a, b) for old, new in _NORMS for a, b in ((old, new), (new, old))}
    prefixes = {key[: -len(end)] for key in weights for end in ends if end and key.endswith("." + end)}
    return ["", *sorted(prefixes, key=lambda prefix: (_rank(prefix), len(prefix), prefix))]


def _rank(prefix: str) -> int:
    """The place of a prefix's last telling word among those that hold weights; averaged ones come first."""
    words = [word for word in prefix.split(".") if word]
    if any("ema" in word.lower().split("_") for word in words):
        return 0
    return min((_NESTS.index(word) + 1 for word in words if word in _NESTS), default=len(_NESTS) + 1)


def _bare(key: str) -> str:
    """A key without what parallel and compiled wrappers put into it."""
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper).replace("." + wrapper, ".")
    return key


def _renamed(own: Weights, weights: Weights) -> Weights:
    """Normalised weights under the names that the module uses."""
    renamed = dict(weights)
    for old, new in _NORMS:
        for key in weights:
            for a, b in ((old, new), (new, old)):
                other = key[: -len(a)] + b
                if key.endswith("." + a) and key not in own and other in own:
                    renamed[other] = renamed.pop(key)
    return renamed


def _told_of_keys(file: str, needs: Needs, fit: _Fit) -> list[str]:
    """Notices about what a file has too much, and too little."""
    computed = needs.computed(fit.weights)
    notes = []
    if any(key.endswith(COUNTER) for key in computed):
        notes.append(f"{file} holds no counts of batches; only training would need them")
    if made := [key for key in computed if not key.endswith(COUNTER)]:
        notes.append(f"{file} holds no {_some(made)} that fits; the network has computed it itself")
    if fit.aside:
        ends = dict.fromkeys(key.rpartition(".")[2] for key in fit.aside)
        notes.append(
            f"{file}: {len(fit.aside)} entries for which the network has no place, none of them a weight, "
            f"are left aside ({_some([*ends])})"
        )
    return notes


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _misfit(module: nn.Module, path: Path, needs: Needs, nests: list[tuple[str, Weights]]) -> ModelError:
    """What does not fit in the mapping that comes nearest."""
    own = needs.own
    where, weights = max(nests, key=lambda nest: len(own.keys() & {_bare(key) for key in nest[1]}))
    weights = _renamed(own, _bared(own, weights))
    taken = needs.taken(weights)
    missing, foreign = needs.missing(taken), needs.foreign(weights)
    inside = f" ({where})" if where else ""
    key = needs.unlike(taken)
    if not missing and not foreign and key is not None:
        return ModelError(
            f"{path}{inside} does not fit {type(module).__name__}: {needs.difference(key, taken)}"
        )
    return ModelError(
        f"{path}{inside} does not fit {type(module).__name__}: "
        + "; ".join(
            f"{len(keys)} {what} ({_some(keys)})"
            for keys, what in ((missing, "missing"), (foreign, "unknown"))
            if keys
        )
    )
