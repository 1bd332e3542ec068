"""The best linear observer of a map: how well a known change is told from noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

__all__ = ["Detectability", "Hotelling", "cross_fit", "measure"]

_FLOOR = 0.01  # the observer's own noise, as a share of the map's mean noise power
_CHANNELS = 64
_CHUNK = 16


@dataclass(frozen=True)
class Detectability:
    """Detectability ``d'``: distance of the observer's scores with and without the lesion.

    Arguments:
        value: Difference of the scores' means over their standard deviation; 3 means that 98 % of
            decisions between two images, one with the lesion, are right.
        error: Standard error of the value.
        change: Length of the mean change that the lesion makes in the map; below 0 where it is none but
            for chance.
    """

    value: float
    error: float
    change: float = math.nan


class Hotelling:
    """The linear observer that is best for stationary noise, learned on noise realisations.

    Its template is ``w(f) = (K(f) + floor)^-1 S(f)`` at every spatial frequency ``f``: ``S`` the
    mean change that the signal makes, ``K`` the noise's cross-spectra between all channels. So it
    is prewhitened in space and across channels (Barrett and Myers, Foundations of Image Science,
    2004, chapter 13), with few realisations needed because every realisation gives all
    frequencies, and neighbouring ones are averaged. Each channel is first brought to unit noise;
    ``floor`` is 1 % of that: an observer does not use what lies 20 dB below the noise.

    Arguments:
        noise: Maps without signal, (N, C, h, w); their mean is taken off.
        signals: Mean changes, (S, C, h, w), by which the channels that matter are chosen where
            there are more than 64.
    """

    def __init__(self, noise: Tensor, signals: Tensor) -> None:
        residual = noise - noise.mean(0)
        spread = residual.square().mean((0, 2, 3)).sqrt()
        self._scale = spread.clamp_min(max(1e-3 * float(spread.max()), 1e-30)).reciprocal()[:, None, None]
        residual = residual * self._scale
        self._basis = _basis(residual, signals * self._scale)
        spectra = torch.fft.fft2(_mixed(residual, self._basis)).movedim(1, -1)  # (N, h, w, C)
        n = len(spectra)
        channels = spectra.shape[-1]
        self._cross = torch.zeros((*spectra.shape[1:], channels), dtype=spectra.dtype)
        for start in range(0, n, _CHUNK):
            part = spectra[start : start + _CHUNK]
            self._cross += torch.einsum("nhwc,nhwd->hwcd", part, part.conj())
        self._cross /= max(n - 1, 1)
        self._cross = _smooth(self._cross)
        power = float(torch.diagonal(self._cross, dim1=-2, dim2=-1).real.mean())
        self._cross += max(_FLOOR * power, 1e-30) * torch.eye(channels)

    def template(self, signal: Tensor) -> Tensor:
        """``w`` (C, h, w) for a signal's mean change (C, h, w)."""
        spectrum = torch.fft.fft2(_mixed((signal * self._scale)[None], self._basis))[0].movedim(0, -1)
        weights = torch.linalg.solve(self._cross, spectrum[..., None])[..., 0]
        filtered = torch.fft.ifft2(weights.movedim(-1, 0)).real
        if self._basis is not None:
            filtered = torch.einsum("rc,rhw->chw", self._basis, filtered)
        return filtered * self._scale

    @property
    def fits_all(self) -> bool:
        """Whether all channels are used, so that the observer serves any signal."""
        return self._basis is None


def cross_fit(absent: Tensor, present: Tensor, known: list[Hotelling] | None = None) -> Detectability:
    """``d'`` in maps: each half of the noise is judged by the observer that the other half taught.

    Arguments:
        absent: Maps without the lesion, (N, C, h, w).
        present: Maps of the same noise with it, (N, C, h, w).
        known: Observers that earlier calls on the same ``absent`` have learned; filled where it is
            empty, and used again where they serve any signal.
    """
    known = [] if known is None else known
    count = len(absent) // 2
    without, having = [], []
    changes = [(present[half::2] - absent[half::2]).mean(0) for half in (0, 1)]
    for half in (0, 1):
        taught, judged = slice(half, None, 2), slice(1 - half, None, 2)
        change = changes[half]
        if len(known) > half and known[half].fits_all:
            observer = known[half]
        else:
            observer = Hotelling(absent[taught], change[None])
            known[half:] = [observer, *known[half + 1 :]]
        template, middle = observer.template(change), absent[taught].mean(0)
        without.append(((absent[judged] - middle) * template).sum((1, 2, 3))[:count])
        having.append(((present[judged] - middle) * template).sum((1, 2, 3))[:count])
    power = float((changes[0] * changes[1]).sum())  # of two halves: noise adds nothing to it on average
    length = math.copysign(math.sqrt(abs(power)), power)
    return replace(measure(torch.stack(without), torch.stack(having)), change=length)


def _basis(residual: Tensor, signals: Tensor) -> Tensor | None:
    """An orthonormal basis (R, C) of the channels' space that holds the signals and most of the noise."""
    channels = residual.shape[1]
    if channels <= _CHANNELS:
        return None
    change = signals.movedim(1, 0).flatten(1)
    u, sizes, _ = torch.linalg.svd(change, full_matrices=False)
    first = u[:, : _CHANNELS // 4][:, sizes[: _CHANNELS // 4] > 1e-6 * sizes[:1].clamp_min(1e-30)]
    rest = residual.movedim(1, 0).flatten(1)
    rest = rest[:, :: max(1, rest.shape[1] // (4 * channels))]
    rest = rest - first @ (first.T @ rest)
    more = torch.linalg.svd(rest, full_matrices=False)[0][:, : _CHANNELS - first.shape[1]]
    return torch.linalg.qr(torch.cat([first, more], 1))[0].T.contiguous()


def _mixed(maps: Tensor, basis: Tensor | None) -> Tensor:
    return maps if basis is None else torch.einsum("rc,nchw->nrhw", basis, maps)


def _smooth(cross: Tensor) -> Tensor:
    """Average over the neighbouring frequencies (1 2 1), in each direction that has any."""
    for axis in (0, 1):
        if cross.shape[axis] >= 4:
            cross = 0.5 * cross + 0.25 * (cross.roll(1, axis) + cross.roll(-1, axis))
    return cross


def measure(absent: Tensor, present: Tensor) -> Detectability:
    """``d'`` of scores that the observer never learned from.

    Arguments:
        absent: Scores without the lesion, (folds, n).
        present: Scores of the same noise with the lesion, (folds, n).

    Scores of different folds may have different scales. That both hold the same noise makes the
    difference of the means nearly exact, while the spread, which is what it is compared with, is
    that of each of the two.

    Example:
        >>> scores = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
        >>> round(measure(scores, scores + 2).value, 1)
        2.0
    """
    values, errors = [], []
    for without, having in zip(absent.double(), present.double(), strict=True):
        n = len(without)
        spread = float(((without.var() + having.var()) / 2).sqrt())
        gain = having - without
        if spread <= 1e-12 * max(float(without.abs().max()), 1e-30):
            # No noise reaches the layer: a change is then seen without doubt, none never.
            values.append(0.0 if float(gain.abs().max()) == 0 else math.copysign(np.inf, float(gain.mean())))
            errors.append(0.0)
            continue
        detectability = float(gain.mean()) / spread * (1 - 3 / (4 * (2 * n - 2) - 1))
        values.append(detectability)
        errors.append(float(gain.var()) / spread**2 / n + detectability**2 / (2 * n))
    return Detectability(float(np.mean(values)), math.sqrt(float(np.mean(errors)) / len(errors)))
