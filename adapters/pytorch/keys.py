"""What a network needs from a weight file, and which entries of a file decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from ctinv.adapters.errors import ModelError
from torch import nn

__all__ = ["COUNTER", "Needs", "refuse_unfinite"]

Weights = Mapping[str, Any]

COUNTER = "num_batches_tracked"
"""The end of keys that count batches; only training needs them."""

# Tables that follow from sizes, which networks compute anew when they are built.
_TABLES = frozenset({"attn_mask", "relative_position_index", "relative_coords_table", "position_ids"})
# What profilers, trainers and older versions of networks leave beside the weights.
_ASIDE = _TABLES | {COUNTER, "total_ops", "total_params", "n_averaged", "_extra_state"}
# Of intensities, for each colour at most; longer ones may be learned.
_SCALES, _COLOURS = ("mean", "std", "pixel_mean", "pixel_std", "img_mean", "img_std"), 4
# Ends of keys of what training sets, also where it is kept as a buffer: no network computes it anew.
_TRAINED = ("weight", "bias", "weight_u", "weight_v", "_u", "_v", "running_mean", "running_var")
_CODES = ("embed", "embedding", "codebook", "cluster_size", "embed_avg")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _is_trained(key: str) -> bool:
    return _last(key) in (*_TRAINED, *_CODES) or key.endswith(("weight", "bias"))


class Needs:
    """What a network needs from a weight file.

    Arguments:
        module: The network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.own: dict[str, Any] = dict(module.state_dict())
        buffers = dict(module.named_buffers(remove_duplicate=False))
        # Buffers that are kept out of files today may stand in older ones.
        self.fleeting = {key: value for key, value in buffers.items() if key not in self.own}
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._computed = {key for key in buffers if not _is_trained(key)}
        self._heads: dict[tuple[int, ...], str] = {}
        for key, value in self.own.items():
            if place := _place(value):
                self._heads.setdefault(place, key)

    def first(self) -> str:
        """The first key that a file must have; empty where there is none."""
        return next((key for key in self.own if key not in self._computed), "")

    def taken(self, weights: Weights) -> dict[str, Any]:
        """The entries that the network has a place for, without tables for images of another size."""
        return {
            key: value
            for key, value in weights.items()
            if (key in self.own or key in self.fleeting)
            and not (_last(key) in _TABLES and key in self._computed and self._shaped_otherwise(key, value))
        }

    def missing(self, weights: Weights) -> list[str]:
        """Keys without which the network is not the one that was trained."""
        known = {_place(self.own[key]) for key in weights if key in self.own} - {None}
        return [
            key
            for key, value in self.own.items()
            if key not in weights and key not in self._computed and _place(value) not in known
        ]

    def computed(self, weights: Weights) -> list[str]:
        """Keys that are not there, and need not be: the network has computed them."""
        return [key for key in self.own if key not in weights and key in self._computed]

    def foreign(self, weights: Weights) -> list[str]:
        """Keys of tensors that another network was trained with."""
        return [
            key for key, value in weights.items() if self._has_no_place(key, value) and not _aside(key, value)
        ]

    def aside(self, weights: Weights) -> list[str]:
        """Keys of tensors for which there is no place, and which decide nothing."""
        return [
            key for key, value in weights.items() if self._has_no_place(key, value) and _aside(key, value)
        ]

    def unlike(self, weights: Weights) -> str | None:
        """The first key under which there is something else than the network has there."""
        return next((key for key in weights if self.difference(key, weights)), None)

    def difference(self, key: str, weights: Weights) -> str:
        """In what an entry is not what the network has there; empty where it is."""
        own, value = self._at(key), weights[key]
        if not isinstance(own, torch.Tensor):
            return ""
        if not isinstance(value, torch.Tensor):
            return f"{key} is {type(value).__name__} in the file, not a tensor"
        if self._shaped_otherwise(key, value):
            return f"{key} is {tuple(value.shape)} in the file and {tuple(own.shape)} in the network"
        odd = value.is_quantized or value.is_complex() or value.layout != torch.strided or value.is_meta
        if odd or (key in self._parameters and not value.is_floating_point()):
            kind = "a sparse tensor" if value.layout != torch.strided else str(value.dtype)
            kind = "without values (device meta)" if value.is_meta else kind
            return f"{key} is {kind} in the file and {own.dtype} in the network"
        head = self._heads.get(_place(own) or (), key)
        if head != key and isinstance(weights.get(head), torch.Tensor) and (weights[head] != value).any():
            return f"{head} and {key} are two tensors in the file and one in the network"
        return ""

    def _at(self, key: str) -> Any:
        return self.own[key] if key in self.own else self.fleeting[key]

    def _has_no_place(self, key: str, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and key not in self.own and key not in self.fleeting

    def _shaped_otherwise(self, key: str, value: Any) -> bool:
        own = self.own[key] if key in self.own else self.fleeting[key]
        if (
            not isinstance(own, torch.Tensor)
            or not isinstance(value, torch.Tensor)
            or nn.parameter.is_lazy(own)
        ):
            return False
        return own.shape != value.shape


def _aside(key: str, value: torch.Tensor) -> bool:
    """Whether an entry without a place decides nothing: no training sets whole numbers by gradients."""
    counts = not (value.is_floating_point() or value.is_complex() or value.is_quantized)
    scale = _last(key) in _SCALES and value.numel() <= _COLOURS
    return _last(key) in _ASIDE or scale or (counts and not _is_trained(key))


def _place(value: Any) -> tuple[int, ...] | None:
    """Where a tensor's values lie: weights that are shared lie in one place."""
    if not isinstance(value, torch.Tensor) or nn.parameter.is_lazy(value) or not value.numel():
        return None
    try:
        return (value.data_ptr(), *value.shape, *value.stride()) if value.data_ptr() else None
    except RuntimeError:
        return None


def refuse_unfinite(module: nn.Module, where: str, given: Weights | None = None) -> None:
    """Refuse weights that are NaN or infinite.

    Buffers may hold infinities, as masks of attentions do, but where training set them.

    Arguments:
        module: The network.
        where: What to call it, or its file.
        given: What was read from a file; None for a network that was given as it is.

    Raises:
        ModelError: A tensor is not finite; it is named.
    """
    parameters: Iterable[tuple[str, torch.Tensor]] = module.named_parameters()
    for key, value in chain(parameters, module.named_buffers()):
        if (
            nn.parameter.is_lazy(value)
            or value.is_meta
            or not value.is_floating_point()
            or value.itemsize < 2
        ):
            continue
        masked = not isinstance(value, nn.Parameter) and not _is_trained(key)
        wrong = value.isnan() if masked else ~value.isfinite()
        if not bool(wrong.any()):
            continue
        if given is not None and isinstance(given.get(key), torch.Tensor) and given[key].isfinite().all():
            raise ModelError(
                f"{where}: {key} is too large for the network's {value.dtype}; build the network in float32"
            )
        raise ModelError(
            f"{where}: {int(wrong.sum())} of {value.numel()} values of {key} are NaN or infinite; take "
            "another checkpoint, from before the training diverged"
        )
