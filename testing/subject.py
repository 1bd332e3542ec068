"""What is checked: a denoiser, images for it, and how its layers are known independently of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.adapters.base import OUTPUT, Denoiser

__all__ = ["InapplicableError", "Reference", "Subject", "capture", "state_of"]

Reference = Callable[[Any], Mapping[str, Any]]
"""From images in the model's units (N, C, H, W) to the output of every layer, by name."""


class InapplicableError(Exception):
    """A check does not apply to this denoiser."""


@dataclass(frozen=True)
class Subject:
    """A denoiser under check.

    Arguments:
        denoiser: Its units are known.
        images: (N, 1, H, W), float32, HU; two or more.
        reference: Knows the layers independently; None where nothing does.
        module: The PyTorch module behind it; None where there is none.
        before: Its state before anything was asked, see :func:`state_of`.
    """

    denoiser: Denoiser
    images: np.ndarray
    reference: Reference | None = None
    module: Any = None
    before: Sequence[Any] = ()

    @property
    def names(self) -> list[str]:
        """Names of the layers that can be read."""
        return [layer.name for layer in self.denoiser.layers if layer.tappable]

    def read(self, x: Any, name: str, **options: Any) -> np.ndarray:
        """One layer, as an array."""
        z = self.denoiser.features(x, name, **options)
        return z if isinstance(z, np.ndarray) else np.asarray(z.detach().cpu().numpy())


def capture(module: Any) -> Reference:
    """A reference for a module: every sub-module's ``forward`` is replaced on a copy, without hooks.

    Arguments:
        module: A ``torch.nn.Module`` that takes the image alone.
    """
    import torch

    def read(u: Any) -> dict[str, Any]:
        clone = copy.deepcopy(module).eval()
        calls: dict[str, list[Any]] = {}

        def patch(name: str, part: Any) -> None:
            original = part.forward

            def forward(*args: Any, **kwargs: Any) -> Any:
                value = original(*args, **kwargs)
                kept = value.detach().clone() if isinstance(value, torch.Tensor) else None
                calls.setdefault(name, []).append(kept)
                return value

            part.forward = forward

        for name, part in clone.named_modules():
            if name:
                patch(name, part)
        with torch.no_grad():
            output = clone(torch.as_tensor(u))
        outputs = {name: kept[0] for name, kept in calls.items() if len(kept) == 1 and kept[0] is not None}
        several = {
            f"{name}@{k}": z for name, kept in calls.items() for k, z in enumerate(kept) if len(kept) > 1
        }
        outputs |= {name: z for name, z in several.items() if z is not None}
        if isinstance(output, torch.Tensor):
            outputs[OUTPUT] = output
        return {name: value.float().numpy() for name, value in outputs.items()}

    return read


def state_of(module: Any) -> list[Any]:
    """Weights, buffers, training flags and numbers of hooks of a module, in comparable form."""
    if module is None:
        return []
    tensors = [(name, value.detach().cpu().numpy().tobytes()) for name, value in module.state_dict().items()]
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    return [tensors, [part.training for part in module.modules()], hooks]
