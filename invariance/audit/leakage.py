"""Leakage: how much of a sample's change the layer does see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from ctinv.adapters._types import Image
from torch import Tensor

__all__ = ["Seen", "matched_control", "seen_changes"]

_Energy = npt.NDArray[np.float64]


def matched_control(change: Image, rng: np.random.Generator) -> Image:
    """A random image with the power spectrum and norm of ``change``, phases drawn anew.

    Arguments:
        change: ``x' - x`` (H, W), any unit.
        rng: Draws the phases.

    Example:
        >>> change = np.eye(8, dtype=np.float32)
        >>> control = matched_control(change, np.random.default_rng(0))
        >>> bool(np.isclose(np.linalg.norm(control), np.linalg.norm(change)))
        True
    """
    # The phases of white noise's transform are random and keep the result real.
    phases = np.fft.fft2(rng.standard_normal(change.shape))
    control = np.fft.ifft2(np.abs(np.fft.fft2(change)) * phases / np.maximum(np.abs(phases), 1e-30)).real
    return control.astype(np.float32)


@dataclass(frozen=True)
class Seen:
    """How far samples and their controls move a layer, over the places of its output.

    Arguments:
        moved: Squared change of the layer by each sample, summed over channels, (K, h, w).
        control: The same by each sample's matched control.
    """

    moved: _Energy
    control: _Energy

    @property
    def size(self) -> npt.NDArray[np.float64]:
        """``|Phi(x') - Phi(x)|`` of each sample, (K,)."""
        return np.asarray(np.sqrt(self.moved.sum((1, 2))))

    def leakage(self, where: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
        """Leakage of each sample, (K,).

        Arguments:
            where: Places (h, w) of the layer's output to count; None for all.
        """
        mask = np.ones(self.moved.shape[1:], dtype=bool) if where is None else where
        moved, control = (np.sqrt(e[:, mask].sum(1)) for e in (self.moved, self.control))
        blind = np.where(moved > 0, np.inf, 0.0)
        return np.asarray(np.divide(moved, control, out=blind, where=control > 0))


def seen_changes(
    represent: Callable[[Image], Tensor], base: Image, samples: Image, rng: np.random.Generator
) -> Seen:
    """Show the layer samples of one image, and changes of the same size and texture.

    Arguments:
        represent: The layer's output for one slice (H, W) in HU, standardised per channel:
            (..., h, w).
        base: The image ``x`` that the changes are counted from, (H, W), HU.
        samples: Samples ``x'`` (K, H, W), HU.
        rng: Draws the controls.
    """
    z = represent(base)

    def energy(image: Image) -> _Energy:
        change = (represent(image) - z).square_()
        places = change.shape[-2:] if change.ndim > 1 else (1, change.numel())
        return change.reshape(-1, *places).sum(0, dtype=torch.float64).numpy()

    moved, control = [], []
    for sample in samples:
        moved.append(energy(sample))
        control.append(energy(base + matched_control(sample - base, rng)))
    return Seen(np.stack(moved), np.stack(control))
