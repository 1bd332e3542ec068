"""What a scanner makes of something that is put into its object: projected, filtered, reconstructed."""

from __future__ import annotations

import math

import numpy as np
from ctinv.adapters._types import Image
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .dose import Kernel, kernel_window
from .projection import parallel_beam

__all__ = ["reconstructed"]


def reconstructed(
    added: NDArray[np.float32], spacing: tuple[float, float], *, kernel: Kernel = "smooth"
) -> Image:
    """A structure as it looks after the scan: with the blur of detector grid and reconstruction kernel.

    Projection and filtered back-projection are linear, so what a structure adds to the object can be
    sent through them on its own.

    Arguments:
        added: What it adds to the object, sharp, float32 (H, W), HU; zero at the border.
        spacing: Row and column spacing, mm.
        kernel: Reconstruction kernel, ``smooth`` or ``sharp``.

    Returns:
        What it adds to the slice, float32 (H, W), HU.

    Raises:
        ImageError: Not a slice, or an unknown kernel.
    """
    image = np.asarray(added, dtype=np.float32)
    if image.ndim != 2 or min(image.shape) < 8:
        raise ImageError(f"an image of shape {image.shape} cannot be projected; give (H, W), 8 x 8 or more")
    rows, columns = float(spacing[0]), float(spacing[1])
    views = math.ceil(math.pi / 2 * max(image.shape))
    beam = parallel_beam((image.shape[0], image.shape[1]), views, round(rows / columns, 4))
    window = kernel_window(kernel, beam.ramp_frequencies / columns)
    return beam.filtered_back_projection(beam.project(image), window)
