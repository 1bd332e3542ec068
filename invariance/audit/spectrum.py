"""The spectrum of a layer's Jacobian: which directions of a patch it cannot tell from noise.

A direction's *gain* is how far the layer's output moves per HU of change along it, over the same for
noise: a direction of gain 1 is seen as noise is, one of gain below ``rho`` is hidden at that ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.invariance.observer import Observer
from ctinv.invariance.refine import RHO, Refined, refine
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from .window import Window

__all__ = ["Share", "Spectrum", "change_spectrum", "leading_gains", "noise_gain", "sample_blind", "spectrum"]

Image = npt.NDArray[np.float32]
_Numbers = npt.NDArray[np.float64]

_STEPS = 96
_BATCH = 4


@dataclass(frozen=True)
class Share:
    """A share between 0 and 1.

    Arguments:
        value: Best estimate.
        low: It is at least this, whatever the spectrum between the nodes of the quadrature.
        high: It is at most this.
        error: Standard error over the random directions or the changes; 0 for one of them.
    """

    value: float
    low: float
    high: float
    error: float


@dataclass(frozen=True)
class _Measure:
    """Where the energy of one direction lies in the spectrum: a Gauss quadrature."""

    nodes: _Numbers  # squared gains, rising
    weights: _Numbers
    exact: bool  # the direction's Krylov space is exhausted

    def below(self, square: float) -> tuple[float, float, float]:
        """Weight of squared gains up to ``square``: estimate, least, most."""
        passed = int(np.searchsorted(self.nodes, square, "right"))
        sums = np.concatenate([[0.0], np.cumsum(self.weights)])
        if self.exact:
            return float(sums[passed]), float(sums[passed]), float(sums[passed])
        low = float(sums[max(passed - 1, 0)])
        high = float(min(sums[min(passed + 1, len(self.nodes))], 1.0))
        middles = sums[:-1] + self.weights / 2
        gains = np.sqrt(np.maximum(self.nodes, 1e-30))
        if passed == 0:  # about as many directions per step of gain as up to the first node
            return float(middles[0] * np.sqrt(square) / gains[0]), low, high
        value = np.interp(0.5 * np.log(square), np.log(gains), middles)
        return float(np.clip(value, low, high)), low, high


@dataclass(frozen=True)
class Spectrum:
    """How gains are distributed over the directions of a window, or over the energy of changes.

    Arguments:
        measures: One quadrature per random direction or change.
        unknowns: Directions of the window.
    """

    measures: tuple[_Measure, ...]
    unknowns: int

    def below(self, rho: float) -> Share:
        """The share of directions, or of energy, whose gain is at most ``rho``.

        Its interval holds for each start direction (inequalities of Chebyshev, Markov and Stieltjes
        for Gauss quadrature); more Lanczos steps narrow it.
        """
        found = np.array([measure.below(rho**2) for measure in self.measures])
        many = len(found) > 1
        error = float(found[:, 0].std(ddof=1) / np.sqrt(len(found))) if many else 0.0
        value, low, high = found.mean(0)
        return Share(float(value), float(low), float(high), error)

    def hidden(self, rho: float) -> float:
        """How many directions of the window have a gain of at most ``rho``."""
        return self.below(rho).value * self.unknowns

    @property
    def gain(self) -> float:
        """Root of the mean squared gain: ``|J d| / |d|`` over the same for noise; exact."""
        return float(np.sqrt(np.mean([(m.nodes * m.weights).sum() for m in self.measures])))


def noise_gain(look: Window, noise: Image) -> float:
    """How far noise moves the layer per HU: the root of ``mean |J n|^2 / mean |n|^2``.

    Arguments:
        look: The window.
        noise: Noise realisations (K, H, W), HU.
    """
    inside = look.cut(noise)
    moved = sum(float(look.seen(part).square().sum()) for part in inside.split(_BATCH))
    return float(np.sqrt(moved / max(float(inside.square().sum()), 1e-30)))


def spectrum(
    look: Window, noise_moves: float, *, directions: int = 4, steps: int = _STEPS, seed: int = 0
) -> Spectrum:
    """The distribution of gains over all directions of a window, by stochastic Lanczos quadrature.

    Random directions stand for all: each costs ``steps`` products, and the mean over them is
    unbiased. One direction among n has an error of about ``sqrt(2 f (1 - f) / n)`` for a share f.

    Sources: Lin, Saad, Yang, SIAM Review 58, 2016; Ubaru, Chen, Saad, SIAM J Matrix Anal 38, 2017.

    Arguments:
        look: The window.
        noise_moves: What :func:`noise_gain` gives.
        directions: How many to draw.
        steps: Lanczos steps; gains down to some ``2 / steps`` of the largest are told apart.
        seed: Draws the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randn((directions, look.unknowns), generator=generator)
    return Spectrum(_measures(look, starts, noise_moves, steps), look.unknowns)


def change_spectrum(look: Window, noise_moves: float, changes: Image, *, steps: int = _STEPS) -> Spectrum:
    """The distribution of gains over the energy that changes have inside a window.

    Arguments:
        look: The window.
        noise_moves: What :func:`noise_gain` gives.
        changes: ``x' - x`` (K, H, W), HU; those that are zero inside the window count as hidden.
        steps: Lanczos steps per change.
    """
    return Spectrum(_measures(look, look.cut(changes), noise_moves, steps), look.unknowns)


def _measures(look: Window, starts: Tensor, noise_moves: float, steps: int) -> tuple[_Measure, ...]:
    found: list[_Measure] = []
    for part in starts.split(_BATCH):
        found += _lanczos(look, part, noise_moves, min(steps, look.unknowns))
    return tuple(found)


def _lanczos(look: Window, starts: Tensor, noise_moves: float, steps: int) -> list[_Measure]:
    """Lanczos' recurrence with full orthogonalisation, several start directions at a time."""
    count = len(starts)
    length = starts.norm(dim=1, keepdim=True)
    v = starts / length.clamp_min(1e-30)
    running = length[:, 0] > 0
    basis = torch.zeros((steps, *starts.shape))
    diagonal, beside = np.zeros((steps, count)), np.zeros((steps, count))
    taken = np.zeros(count, dtype=int)
    largest = torch.zeros(count)
    for step in range(steps):
        basis[step] = v
        w = look.gram(v)
        largest = torch.maximum(largest, w.norm(dim=1))
        diagonal[step] = (w * v).sum(1).double().numpy()
        taken[running.numpy()] = step + 1
        for _ in range(2):  # twice is enough to stay orthogonal in single precision
            inner = torch.einsum("sbn,bn->sb", basis[: step + 1], w)
            w = w - torch.einsum("sb,sbn->bn", inner, basis[: step + 1])
        left = w.norm(dim=1)
        running = running & (left > 1e-5 * largest)
        if not running.any():
            break
        beside[step] = left.double().numpy()
        v = torch.where(running[:, None], w / left.clamp_min(1e-30)[:, None], 0.0)
    ended = (~running).numpy() | (taken == look.unknowns)
    unit = noise_moves**2
    return [
        _quadrature(diagonal[:m, b], beside[: m - 1, b], unit, bool(ended[b])) for b, m in enumerate(taken)
    ]


def _quadrature(diagonal: _Numbers, beside: _Numbers, unit: float, exact: bool) -> _Measure:
    if len(diagonal) == 0 or not diagonal.any():  # nothing there, or nothing of it is seen
        return _Measure(np.zeros(1), np.ones(1), True)
    values, vectors = eigh_tridiagonal(diagonal, beside)
    nodes = np.maximum(values, 0.0) / unit if unit > 0 else np.where(values > 0, np.inf, 0.0)
    return _Measure(nodes, vectors[0] ** 2, exact)


def leading_gains(
    look: Window, noise_moves: float, count: int = 8, *, rounds: int = 3, seed: int = 0
) -> _Numbers:
    """The largest gains of a window, falling: what the layer sees best.

    Source: Halko, Martinsson, Tropp, SIAM Review 53, 2011 (randomised subspace iteration).

    Arguments:
        look: The window.
        noise_moves: What :func:`noise_gain` gives.
        count: How many.
        rounds: Products per direction; each sharpens the smaller of them.
        seed: Draws the start.
    """
    size = min(2 * count + 4, look.unknowns)
    generator = torch.Generator().manual_seed(seed)
    space = torch.linalg.qr(torch.randn((look.unknowns, size), generator=generator))[0]
    for _ in range(rounds):
        space = torch.linalg.qr(look.gram(space.T.contiguous()).T)[0]
    seen = look.gram(space.T.contiguous())
    values = torch.linalg.eigvalsh((seen @ space).double()).flip(0)[:count]
    gains: _Numbers = values.clamp_min(0).sqrt().numpy() / max(noise_moves, 1e-30)
    return gains


def sample_blind(
    observer: Observer,
    x: Image,
    noise_moves: float,
    prior: Image,
    *,
    amplitude: float | None = None,
    rho: float = RHO,
    rhos: Sequence[float] = (),
    steps: int = 12,
) -> Refined:
    """Changes from the local blind subspace itself: random images with all that is seen taken out.

    Where no flow says what changes are likely, the answer is as likely as the prior: its size means
    something only beside the prior's.

    Arguments:
        observer: The layer, differentiable.
        x: The slice (H, W), HU.
        noise_moves: How far noise moves the layer, see :func:`ctinv.invariance.refine.noise_change`.
        prior: Random images (K, H, W) of zero mean, HU, such as noise realisations.
        amplitude: RMS in HU that the prior is scaled to; as it is where None.
        rho: Noise ratio of the changes.
        rhos: Further ones, see :func:`ctinv.invariance.refine.refine`.
        steps: Lanczos steps.

    Raises:
        UnsupportedModelError: The denoiser has no gradients.
    """
    scale = 1.0 if amplitude is None else amplitude / max(float(np.sqrt(np.mean(prior**2))), 1e-30)
    start = np.asarray(prior * np.float32(scale), dtype=np.float32)
    return refine(observer, x, start, noise_moves, rho=rho, rhos=rhos, steps=steps)
