"""What a layer makes of one place of a slice, with and without a lesion, under many noise realisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ctinv.adapters._types import Image, Progress
from ctinv.adapters.base import INPUT, OUTPUT, Denoiser
from ctinv.adapters.errors import CtinvError, ImageError, ModelError, UnsupportedModelError
from ctinv.invariance.data.simulation.noise import noise_level, noise_like
from ctinv.invariance.infra.randomness import Purpose, rng
from ctinv.invariance.representation.geometry import probe_geometry
from ctinv.invariance.representation.maps import as_map
from ctinv.invariance.representation.reader import as_listed
from torch import Tensor

__all__ = ["Observation", "Shift", "Target", "observation"]


_STEP = 8  # windows and crops start at multiples of this, so that strided layers keep their phase
_MARGINS = (16, 48)
_AROUND = 10  # pixels of noise around a lesion that prewhitening can use
_CHUNK = 32
_BATCH = 16
_WHOLE = 4  # realisations for the noise ratio over the whole slice
_SAME = 1e-3  # a crop will do where it changes the layer by less than this share of noise's change
_LEAST_NOISE = 0.1


@dataclass(frozen=True)
class Shift:
    """How far a lesion moves a layer, over how far noise does.

    Arguments:
        local: Within the window around the lesion.
        whole: Over the whole slice.
    """

    local: float
    whole: float


@dataclass(frozen=True)
class _Standard:
    """Mean and spread of a layer's channels."""

    mean: Tensor
    scale: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return (as_map(z).float() - self.mean) * self.scale


class Observation:
    """One place of a slice, looked at through several layers; made by :func:`observation`.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names; ``@input`` is the image itself and ``@output`` is f(x), both in HU.
        x: The slice (H, W), HU.
        crop: The part of it that is shown to the denoiser: all of it, or enough for these layers.
        window: The part of the slice that is observed, by its corner and side.
        standards: How each layer is standardised.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        layers: Sequence[str],
        x: Image,
        crop: tuple[slice, slice],
        window: tuple[int, int, int],
        standards: Mapping[str, _Standard],
    ) -> None:
        self.denoiser, self.layers, self.x = denoiser, tuple(layers), x
        self.crop, self.window, self.standards = crop, window, standards
        self.noise: Image = np.zeros((0, *x[crop].shape), dtype=np.float32)
        self.shifts: dict[str, Shift] = {}

    @property
    def cropped(self) -> bool:
        """Whether the denoiser is shown less than the whole slice."""
        return self.x[self.crop].shape != self.x.shape

    @property
    def place(self) -> tuple[slice, slice]:
        """The observed part of the slice."""
        row, column, side = self.window
        return slice(row, row + side), slice(column, column + side)

    def observe(self, signal: Image | None = None) -> dict[str, Tensor]:
        """The window of every layer under every noise realisation, (N, C, h, w) each.

        Arguments:
            signal: What to add to the slice, (H, W), HU.
        """
        base = self.x[self.crop] if signal is None else (self.x + signal)[self.crop]
        parts: dict[str, list[Tensor]] = {name: [] for name in self.layers}
        for start in range(0, len(self.noise), _BATCH):
            for name, z in self.see(base + self.noise[start : start + _BATCH]).items():
                parts[name].append(z)
        return {name: torch.cat(batches) for name, batches in parts.items()}

    def see(self, images: Image) -> dict[str, Tensor]:
        """The window of every layer for images of the crop's size, standardised."""
        row, column, side = self.window
        window = (row - self.crop[0].start, column - self.crop[1].start, side)
        cut = _Cut(window, (images.shape[1], images.shape[2]))
        raw = _read(self.denoiser, self.layers, images)
        return cut({name: self.standards[name](z) for name, z in raw.items()})


def _read(denoiser: Denoiser, layers: Sequence[str], images: Image) -> dict[str, Tensor]:
    batch = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))[:, None]
    values = denoiser.features(batch, list(layers), batch_size=len(batch))
    return {name: as_listed(denoiser, name, torch.as_tensor(z).cpu()) for name, z in values.items()}


@dataclass(frozen=True)
class _Cut:
    """Takes the observed window out of standardised layers; all of a layer that is no map of the image."""

    window: tuple[int, int, int]
    shape: tuple[int, int]

    def __call__(self, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        row, column, side = self.window
        parts = {}
        for name, z in layers.items():
            geometry = probe_geometry(z, self.shape, side)
            part = torch.stack([geometry.cut(one, row, column) for one in z]) if geometry.local else z
            parts[name] = part.clone()
        return parts


@dataclass(frozen=True, eq=False)
class Target:
    """What is put into a slice, and where.

    Arguments:
        x: The slice (H, W), HU.
        signal: The largest lesion that will be put in, (H, W), HU.
        centre: Column and row of the place.
        reach: Radius of that lesion in pixels.
        spacing: Row and column spacing, mm.
    """

    x: Image
    signal: Image
    centre: tuple[int, int]
    reach: int
    spacing: tuple[float, float]


def observation(
    denoiser: Denoiser,
    layers: Sequence[str],
    target: Target,
    *,
    realisations: int,
    seed: int,
    standards: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    progress: Progress | None = None,
) -> Observation:
    """Set up the observation of a place.

    The noise is simulated on the whole slice. The denoiser is shown a crop where that changes
    nothing that the layers say about the window, found out by trying, and else the whole slice.

    Arguments:
        denoiser: The denoiser.
        layers: Canonical names, ``@input`` and ``@output`` among them.
        target: The slice, the lesion and its place.
        realisations: Noise realisations.
        seed: Draws them.
        standards: Mean and spread of the channels where they are known from a fit; elsewhere those
            of this slice are taken.
        progress: Called with (stage, done, total).

    Raises:
        ImageError: The slice holds no noise, or is too small for the lesion.
        CtinvError: A layer's values are not finite.
    """
    x, signal, spacing = target.x, target.signal, target.spacing
    level = noise_level(x)
    if level < _LEAST_NOISE:
        raise ImageError(
            f"the slice holds {level:.2g} HU of noise; whether a lesion can be told is a question of noise: "
            "give a slice as the scanner made it"
        )
    window = _window(x.shape, target.centre, target.reach)
    z, moved_to = _read(denoiser, layers, x[None]), _read(denoiser, layers, (x + signal)[None])
    for name, values in (*z.items(), *moved_to.items()):
        if not bool(values.isfinite().all()):
            raise CtinvError(
                f"layer {name} of {denoiser.name} gives values that are not finite on this slice"
            )
    known = {
        name: _standard(values, None if name in (INPUT, OUTPUT) else (standards or {}).get(name))
        for name, values in z.items()
    }
    cut = _Cut(window, (x.shape[0], x.shape[1]))
    z = {name: known[name](values) for name, values in z.items()}
    plain, changed = cut(z), cut({name: known[name](values) for name, values in moved_to.items()})
    whole, local = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)
    for one in noise_like(x, _WHOLE, rng(seed, Purpose.LESION_MOVES), spacing):
        noisy = {n: known[n](values) for n, values in _read(denoiser, layers, (x + one)[None]).items()}
        near = cut(noisy)
        for name in layers:
            whole[name] += float((noisy[name] - z[name]).norm()) / _WHOLE
            local[name] += float((near[name] - plain[name]).norm()) / _WHOLE
    blank = Observation(denoiser, layers, x, (slice(0, x.shape[0]), slice(0, x.shape[1])), window, known)
    crop = _crop(blank, signal, plain, changed, local)
    made = Observation(denoiser, layers, x, crop, window, known)
    made.noise = _noise(x, crop, realisations, seed, spacing, progress)
    for name in layers:
        step = known[name](moved_to[name]) - z[name]
        made.shifts[name] = Shift(
            _ratio(float((changed[name] - plain[name]).norm()), local[name]),
            _ratio(float(step.norm()), whole[name]),
        )
    return made


def _standard(z: Tensor, known: tuple[Tensor, Tensor] | None) -> _Standard:
    if known is not None:
        return _Standard(known[0], known[1].reciprocal())
    maps = as_map(z).float()
    if maps[0, 0].numel() == 1:  # a vector has no spread over places
        return _Standard(torch.zeros_like(maps[0]), torch.ones_like(maps[0]))
    spread, mean = torch.std_mean(maps, (0, 2, 3), keepdim=True)
    spread = torch.where(spread > 1e-6 * mean.abs() + 1e-12, spread, torch.inf)
    return _Standard(mean[0], spread[0].reciprocal())


def _ratio(change: float, noise: float) -> float:
    return change / noise if noise > 0 else (0.0 if change == 0 else float("inf"))


def _window(shape: tuple[int, ...], centre: tuple[int, int], reach: int) -> tuple[int, int, int]:
    """Row, column and side of the observed square."""
    side = -(-2 * (reach + _AROUND) // _STEP) * _STEP
    if side > min(shape):
        raise ImageError(
            f"the slice of {shape[0]} x {shape[1]} pixels has no room for this lesion and {_AROUND} pixels "
            "around it; give a smaller lesion or a larger slice"
        )
    starts = [
        min(max(0, round((middle - side / 2) / _STEP) * _STEP), (length - side) // _STEP * _STEP)
        for middle, length in zip((centre[1], centre[0]), shape, strict=True)
    ]
    return starts[0], starts[1], side


def _crop(
    trial: Observation,
    signal: Image,
    plain: Mapping[str, Tensor],
    changed: Mapping[str, Tensor],
    local: Mapping[str, float],
) -> tuple[slice, slice]:
    """The smallest crop in which every layer says about the window what it says in the whole slice."""
    row, column, side = trial.window
    height, width = trial.x.shape
    for margin in _MARGINS:
        crop = (
            slice(max(0, row - margin), min(height, row + side + margin)),
            slice(max(0, column - margin), min(width, column + side + margin)),
        )
        if trial.x[crop].size > 0.7 * trial.x.size:
            break
        less = Observation(trial.denoiser, trial.layers, trial.x, crop, trial.window, trial.standards)
        try:
            pairs = (
                (less.see(trial.x[crop][None]), plain),
                (less.see((trial.x + signal)[crop][None]), changed),
            )
        except (ImageError, ModelError, UnsupportedModelError):  # a network that takes one size only
            break
        if all(
            _alike(cropped[name], wanted[name], local[name]) for cropped, wanted in pairs for name in wanted
        ):
            return crop
    return slice(0, height), slice(0, width)


def _alike(cropped: Tensor, wanted: Tensor, noise: float) -> bool:
    return cropped.shape == wanted.shape and float((cropped - wanted).norm()) <= _SAME * noise


def _noise(
    x: Image,
    crop: tuple[slice, slice],
    realisations: int,
    seed: int,
    spacing: tuple[float, float],
    progress: Progress | None,
) -> Image:
    """Realisations on the whole slice, cut to the crop; a few at a time, for memory's sake."""
    parts: list[Image] = []
    for start in range(0, realisations, _CHUNK):
        count = min(_CHUNK, realisations - start)
        numbers = rng(seed, Purpose.LESION_NOISE, start // _CHUNK)
        parts.append(noise_like(x, count, numbers, spacing)[:, *crop].copy())
        if progress:
            progress("noise", start + count, realisations)
    return np.concatenate(parts)
