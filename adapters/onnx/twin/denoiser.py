"""The PyTorch twin of an ONNX denoiser's layer: made, and proven, or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ctinv.adapters.base import OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError
from ctinv.adapters.geometry import Geometry
from ctinv.adapters.onnx.graph.prune import Wanted
from ctinv.adapters.onnx.running.runner import Runner
from ctinv.adapters.pytorch.denoiser import TorchDenoiser
from torch import nn

from .module import NotPlainError, rebuilt

if TYPE_CHECKING:
    from ctinv.adapters.intensity import Intensity

__all__ = ["TwinDenoiser", "make_twin"]

_TOLERANCE = 1e-4
_MORE = (24, 16)
# Operators that are rebuilt for images refuse other tensors in many ways.
_FAILURES = (NotPlainError, CtinvError, RuntimeError, TypeError, ValueError, IndexError, KeyError)


class _Borrowed(Geometry):
    """The image sizes of another denoiser."""

    def __init__(self, own: Geometry) -> None:
        self._own = own

    @property
    def probe_size(self) -> tuple[int, int]:
        """Height and width of a probe image."""
        return self._own.probe_size

    @property
    def crop(self) -> int:
        """Pixels that the output lacks on each side."""
        return self._own.crop

    @property
    def fixed(self) -> tuple[int | None, int | None]:
        """The height and width that the model prescribes."""
        return self._own.fixed

    def given(self, size: Sequence[int]) -> None:
        """Tell the other denoiser the size of an image."""
        self._own.given(size)

    def pads(self, u: Any) -> tuple[int, int]:
        """Rows and columns to mirror, as the other denoiser does."""
        return self._own.pads(u[:1].detach().cpu().numpy())


class TwinDenoiser(TorchDenoiser):
    """A graph rebuilt as a module, that mirrors and crops images as the file's own denoiser does."""

    def __init__(self, module: nn.Module, own: Denoiser, geometry: Geometry, intensity: Intensity) -> None:
        super().__init__(
            module,
            intensity=intensity,
            output=own.output or "image",
            name=own.name,
            device="cpu",
            channels=own.channels,
        )
        self._geometry = _Borrowed(geometry)


def make_twin(
    own: Denoiser,
    runner: Runner,
    geometry: Geometry,
    want: Wanted,
    name: str,
    maps: Mapping[str, float],
) -> tuple[Denoiser, str] | None:
    """Rebuild a layer and prove it; None where either fails.

    Arguments:
        own: The denoiser, its units known.
        runner: What runs its graph.
        geometry: Its image sizes.
        want: The layer's tensor.
        name: The layer's name.
        maps: Values of further channels of the image.
    """
    free = runner if runner.free and runner.batch is None else runner.lifted()
    if free is None or free.inputs.dtype != np.float32 or own.intensity is None:
        return None
    turned = free.turns(want)
    try:
        expected = [(x, own.features(x, name)) for x in _probes(own)]
        phi, observed = rebuilt(free.trace, want, free.inputs, free.last, turned, [*maps.values()])
        whole = name == OUTPUT
        twin = TwinDenoiser(phi if whole else observed, own, geometry, own.intensity)
        layer = OUTPUT if whole else "phi"
        if not all(_same(theirs, twin.features(x, layer)) for x, theirs in expected):
            return None
    except _FAILURES:
        return None
    return twin, layer


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    span = float(np.abs(a).max(initial=0.0))
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0.0) <= _TOLERANCE * span)


def _probes(own: Denoiser) -> list[np.ndarray]:
    """Two drawn slices of the size that layers are listed with, and one of another, HU."""
    height, width = own.probe_size
    return [_drawn(2, height, width), _drawn(1, height + _MORE[0], width + _MORE[1])]


def _drawn(count: int, height: int, width: int) -> np.ndarray:
    """A body in air, with lungs, bone and noise."""
    rng = np.random.default_rng(height)
    rows, columns = np.mgrid[0:height, 0:width] / np.array([height, width])[:, None, None] - 0.5
    images = np.full((count, 1, height, width), -1000.0)
    for k, image in enumerate(images[:, 0]):
        turn = 0.1 * k
        image[(rows / 0.4) ** 2 + (columns / 0.47) ** 2 < 1] = 40.0
        image[(rows + 0.1) ** 2 + (columns - 0.2 + turn) ** 2 < 0.015] = -850.0
        image[(rows - 0.1 + turn) ** 2 + (columns + 0.2) ** 2 < 0.01] = 120.0
        image[(rows - 0.25) ** 2 + (columns - turn) ** 2 < 0.004] = 900.0
    return (images + rng.normal(0.0, 25.0, images.shape)).astype(np.float32)
