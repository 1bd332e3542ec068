"""Fourier transforms and windows of ONNX in PyTorch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .ops import _TYPES, Node, NotPlainError, Operator, operator

__all__: list[str] = []


@operator("DFT")
def _dft(node: Node) -> Operator:
    inverse, onesided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    stated = node.get("axis", 1 if node.opset < 20 else -2)

    def run(x: Tensor, length: Any = None, axis: Any = None) -> Tensor:
        k = (stated if axis is None else int(axis)) % x.ndim
        size = None if length is None else int(length)
        values = x[..., 0] if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())
        if inverse and onesided:
            return torch.fft.irfft(values, size, k).unsqueeze(-1)
        spectrum = torch.fft.ifft(values, size, k) if inverse else torch.fft.fft(values, size, k)
        if onesided:
            spectrum = spectrum.narrow(k, 0, spectrum.shape[k] // 2 + 1)
        return torch.view_as_real(spectrum.resolve_conj().contiguous())

    return run


@operator("STFT")
def _stft(node: Node) -> Operator:
    onesided = bool(node.get("onesided", 1))

    def run(x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        size = int(length) if length is not None else 0 if window is None else window.shape[0]
        values = x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x
        if values.ndim != 2 or not size:
            raise NotPlainError("a transform of complex signals")
        frames = values.unfold(1, size, int(step))
        frames = frames if window is None else frames * window
        spectrum = torch.fft.rfft(frames) if onesided else torch.fft.fft(frames)
        return torch.view_as_real(spectrum)

    return run


def _window(node: Node, weights: tuple[float, ...]) -> Operator:
    kind = _TYPES.get(node.get("output_datatype", 1))
    if kind is None:
        raise NotPlainError("a window of this type")
    periodic = node.get("periodic", 1)

    def run(size: Tensor) -> Tensor:
        count = int(size)
        turn = 2 * math.pi * torch.arange(count, dtype=torch.float64) / (count if periodic else count - 1)
        return sum((w * torch.cos(k * turn) for k, w in enumerate(weights)), turn * 0).to(kind)

    return run


@operator("HannWindow")
def _hann(node: Node) -> Operator:
    return _window(node, (0.5, -0.5))


@operator("HammingWindow")
def _hamming(node: Node) -> Operator:
    return _window(node, (25 / 46, -21 / 46))


@operator("BlackmanWindow")
def _blackman(node: Node) -> Operator:
    return _window(node, (0.42, -0.5, 0.08))
