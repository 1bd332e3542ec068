"""What a denoiser's layers say of squares, through the channels of observers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ctinv.adapters._types import Image
from ctinv.adapters.base import INPUT, Denoiser
from ctinv.invariance.probing.observers.channels import channel_bank, eye_template
from ctinv.invariance.probing.tasks.task import Task
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.maps import as_map
from ctinv.invariance.representation.reader import as_listed
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

__all__ = ["MARGIN", "OBSERVERS", "WINDOW", "Bank", "Station", "bank", "margin_of"]

OBSERVERS = ("shaped", "lg", "dog", "gabor", "npwe")
"""``shaped``: Laguerre-Gauss channels and the known difference, sharp and blurred; ``npwe``: the
non-prewhitening observer with an eye."""

WINDOW = 40  # pixels that an observer sees
MARGIN = 8  # pixels around them that the denoiser sees; doubled until a layer says the same with more
_WIDTH = 1.25  # of the Laguerre-Gauss channels, in sizes of the lesion
_BLURS = (0.0, 1.0, 2.0)  # pixels
_ROUND = 4  # Laguerre-Gauss channels beside them
_BATCH = 16
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Bank:
    """The channels of one task.

    Arguments:
        images: (K, WINDOW, WINDOW), in pixels of the image.
        parts: Observer to its channels.
    """

    images: NDArray[np.float64]
    parts: Mapping[str, slice]


def bank(
    task: Task, spacing: tuple[float, float], observers: Sequence[str], *, projected: bool = False
) -> Bank:
    """The channels for a task in the middle of the window.

    The shaped ones are the known difference seen through Laguerre-Gauss channels and by itself, after I. Diaz
    et al., "Derivation of an observer model adapted to irregular signals based on convolution channels",
    IEEE Transactions on Medical Imaging 34, 2015, https://doi.org/10.1109/TMI.2015.2395433

    Arguments:
        task: The task.
        spacing: Row and column spacing, mm.
        observers: Of :data:`OBSERVERS`.
        projected: How the lesion was put in.
    """
    shape, middle = (WINDOW, WINDOW), (WINDOW // 2, WINDOW // 2)
    first, second = task.signals(shape, middle, spacing, projected=projected)
    known = (second - first).astype(np.float64)
    width = _WIDTH * task.size / max(spacing)
    images: list[NDArray[np.float64]] = []
    parts: dict[str, slice] = {}
    for name in observers:
        if name == "npwe":
            made = eye_template(known, spacing)[None]
        else:
            made = channel_bank("lg" if name == "shaped" else name, shape, width, centre=middle)
        if name == "shaped":
            made = made[:_ROUND]
            blurred = np.stack([gaussian_filter(known, blur) if blur else known for blur in _BLURS])
            made = np.concatenate([made, blurred - blurred.mean((1, 2), keepdims=True)])
        start = sum(len(one) for one in images)
        images.append(made / np.linalg.norm(made, axis=(1, 2), keepdims=True))
        parts[name] = slice(start, start + len(made))
    return Bank(np.concatenate(images), parts)


class Station:
    """One denoiser's layers, read in the window in the middle of squares.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names; the image ``@input`` and ``@output`` may be among them.
        example: Squares (n, side, side), HU, by which layers are standardised.
    """

    def __init__(self, denoiser: Denoiser, layers: Sequence[str], example: Image) -> None:
        self.denoiser, self.layers = denoiser, tuple(layers)
        self.scales = {}
        for name, z in self._windows(example[:_BATCH]).items():
            spread = z.std((0, 2, 3))
            limit = 1e-6 * float(np.abs(z).max()) + 1e-12
            self.scales[name] = np.where(spread > limit, 1 / np.maximum(spread, limit), 0.0)

    def _windows(self, squares: Image) -> dict[str, NDArray[np.float32]]:
        """The window of every layer, (n, C, h, w); all of a layer that is no map of the image."""
        batch = torch.from_numpy(np.ascontiguousarray(squares, dtype=np.float32))[:, None]
        values = self.denoiser.features(batch, list(self.layers), batch_size=len(batch))
        side = squares.shape[-1]
        start = side // 2 - WINDOW // 2
        windows = {}
        for name, z in values.items():
            maps = as_map(as_listed(self.denoiser, name, torch.as_tensor(z).cpu())).float()
            geometry = probe_geometry(maps, (side, side), WINDOW)
            if geometry.local:
                maps = torch.stack([geometry.cut(one, start, start) for one in maps])
            windows[name] = maps.numpy()
        return windows

    def respond(self, squares: Image, channels: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        """What each channel says of each map of each layer, (n, C, K).

        Layers of lower resolution are seen through channels of lower resolution; a layer that is no map of
        the image answers with its values, (n, C, 1).

        Arguments:
            squares: (n, side, side), HU.
            channels: (K, WINDOW, WINDOW).
        """
        parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self.layers}
        for start in range(0, len(squares), _BATCH):
            for name, z in self._windows(squares[start : start + _BATCH]).items():
                fitting = _at_resolution(channels, z.shape[-2:])
                flat = z.reshape(*z.shape[:2], -1) @ fitting.reshape(len(fitting), -1).T
                parts[name].append(np.asarray(flat * self.scales[name][:, None], dtype=np.float32))
        return {name: np.concatenate(batches) for name, batches in parts.items()}


def _at_resolution(channels: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Channels (K, WINDOW, WINDOW) as averages over the cells of a coarser, or copies on a finer map."""
    if shape == (WINDOW, WINDOW):
        return channels.astype(np.float32)
    if WINDOW % shape[0] == 0 and shape[0] == shape[1] and shape[0] > 1:
        step = WINDOW // shape[0]
        cells = channels.reshape(len(channels), shape[0], step, shape[1], step).mean((2, 4))
    elif shape[0] == shape[1] and shape[0] % WINDOW == 0:
        cells = channels.repeat(shape[0] // WINDOW, 1).repeat(shape[1] // WINDOW, 2)
    else:
        return np.ones((1, *shape), dtype=np.float32) / np.float32(shape[0] * shape[1])
    return np.asarray(cells - cells.mean((1, 2), keepdims=True), dtype=np.float32)


def margin_of(denoiser: Denoiser, layers: Sequence[str], example: Image) -> int:
    """Pixels around the window with which all layers say of it what they say with more.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names.
        example: One large square (1, side, side), HU.
    """
    side = example.shape[-1]
    largest = (side - WINDOW) // 2 // 8 * 8
    whole = Station(denoiser, layers, example)._windows(_middle(example, WINDOW + 2 * largest))
    margin = MARGIN
    while margin < largest:
        less = Station(denoiser, layers, example)._windows(_middle(example, WINDOW + 2 * margin))
        if all(_alike(less[name], whole[name]) for name in layers if name != INPUT):
            return margin
        margin *= 2
    return largest


def _middle(example: Image, side: int) -> Image:
    start = example.shape[-1] // 2 - side // 2
    return example[:, start : start + side, start : start + side]


def _alike(less: NDArray[np.float32], more: NDArray[np.float32]) -> bool:
    if less.shape != more.shape:
        return False
    spread = float((more - more.mean((2, 3), keepdims=True)).std())
    return float((less - more).std()) <= _SAME * max(spread, 1e-12)
