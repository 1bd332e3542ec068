"""Invariances of denoiser layers: fit, sample, audit, report."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .changes.ask import attack, hide, spectra, spectrum
    from .comparing.compare import compare
    from .comparing.comparison import Comparison
    from .explaining.explainer import Explainer
    from .explaining.fit import fit
    from .presets import PRESETS, Preset, preset
    from .probing.findings import Probe
    from .probing.lesions import Lesion, LesionGrid
    from .probing.probe import probe
    from .reporting.explanation import Explanation

__all__ = [
    "PRESETS",
    "Comparison",
    "Explainer",
    "Explanation",
    "Lesion",
    "LesionGrid",
    "Preset",
    "Probe",
    "attack",
    "compare",
    "fit",
    "hide",
    "preset",
    "probe",
    "spectra",
    "spectrum",
]

_HOMES = {
    "attack": "changes.ask",
    "hide": "changes.ask",
    "spectra": "changes.ask",
    "spectrum": "changes.ask",
    "Comparison": "comparing.comparison",
    "compare": "comparing.compare",
    "Explainer": "explaining.explainer",
    "Explanation": "reporting.explanation",
    "Lesion": "probing.lesions",
    "LesionGrid": "probing.lesions",
    "PRESETS": "presets",
    "Preset": "presets",
    "Probe": "probing.findings",
    "fit": "explaining.fit",
    "preset": "presets",
    "probe": "probing.probe",
}


def __getattr__(name: str) -> Any:
    """Load on first use: ``import ctinv.invariance`` alone does not import torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
