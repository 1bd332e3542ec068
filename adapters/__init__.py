"""Adapters: any denoiser, PyTorch or ONNX, with ``Phi(x)`` readable at named layers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._types import Output
from .base import INPUT, OUTPUT, Denoiser, Layer
from .errors import (
    CtinvError,
    DeviceError,
    ImageError,
    IntensityError,
    LayerError,
    ModelError,
    UnsupportedModelError,
)
from .intensity import CANDIDATES, Intensity, parse_intensity
from .loading import load, wrap

if TYPE_CHECKING:
    from .onnx.denoiser import OnnxDenoiser
    from .pytorch.denoiser import TorchDenoiser

__all__ = [
    "CANDIDATES",
    "INPUT",
    "OUTPUT",
    "CtinvError",
    "Denoiser",
    "DeviceError",
    "ImageError",
    "Intensity",
    "IntensityError",
    "Layer",
    "LayerError",
    "ModelError",
    "OnnxDenoiser",
    "Output",
    "TorchDenoiser",
    "UnsupportedModelError",
    "load",
    "parse_intensity",
    "wrap",
]

# These import torch and onnxruntime, which takes seconds: only when they are asked for.
_LAZY = {"OnnxDenoiser": "onnx.denoiser", "TorchDenoiser": "pytorch.denoiser"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
