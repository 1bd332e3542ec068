"""Leakage: how much of a sample's change the layer does see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["leakage", "matched_control"]

Image = npt.NDArray[np.float32]


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


def leakage(
    represent: Callable[[Image], Tensor], base: Image, samples: Image, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Change of the layer that each sample makes, over the change that its matched control makes.

    ``L = ||Phi(x') - Phi(x)|| / ||Phi(x + c) - Phi(x)||``: 0 is truly invisible, 1 is no more
    invisible than a random change of the same size and texture. A layer that sees neither gives
    0 (nothing leaks); a sample that equals the base gives 0 too.

    Arguments:
        represent: The layer's output for one slice (H, W) in HU, standardised per channel.
        base: The image ``x`` that the changes are counted from, (H, W), HU.
        samples: Samples ``x'`` (K, H, W), HU.
        rng: Draws the controls.

    Returns:
        One leakage per sample, (K,).
    """
    z = represent(base)
    found = []
    for sample in samples:
        change = (represent(sample) - z).norm().item()
        control = (represent(base + matched_control(sample - base, rng)) - z).norm().item()
        found.append(change / control if control > 0 else (0.0 if change == 0 else np.inf))
    return np.array(found)
