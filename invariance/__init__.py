"""Invariances of denoiser layers: fit, sample, audit, report."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .explainer import Explainer
    from .explanation import Explanation
    from .fitting import fit
    from .lesions import Lesion, LesionGrid
    from .presets import PRESETS, Preset, preset
    from .probing import Probe, probe

__all__ = [
    "PRESETS",
    "Explainer",
    "Explanation",
    "Lesion",
    "LesionGrid",
    "Preset",
    "Probe",
    "fit",
    "preset",
    "probe",
]

_HOMES = {
    "Explainer": "explainer",
    "Explanation": "explanation",
    "Lesion": "lesions",
    "LesionGrid": "lesions",
    "PRESETS": "presets",
    "Preset": "presets",
    "Probe": "probing",
    "fit": "fitting",
    "preset": "presets",
    "probe": "probing",
}


def __getattr__(name: str) -> Any:
    """Load on first use: ``import ctinv.invariance`` alone does not import torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
