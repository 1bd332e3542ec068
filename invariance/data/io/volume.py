"""A stack of slices as files of arrays hold it, with the geometry that their headers state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .hounsfield import doubt_of, refuse_other_quantities, remark_on
from .outside import mark_outside
from .slices import CTSlice

__all__ = ["Volume", "slices_of"]


@dataclass(frozen=True, eq=False)
class Volume:
    """What a file holds, before anything is known of its values.

    Arguments:
        values: (H, W) or (slices, H, W), as stored.
        spacing: Distance of slices, rows and columns in mm, None where the header does not say; that
            of slices None for a single slice.
        axes: Unit vectors in patient coordinates (left, posterior, superior) along which slices, rows
            and columns are counted, (3, 3); None where the header does not say.
        origin: Patient coordinates of the first value's centre in mm, or None.
    """

    values: NDArray[Any]
    spacing: tuple[float | None, float, float] | None = None
    axes: NDArray[np.float64] | None = None
    origin: NDArray[np.float64] | None = None

    @staticmethod
    def from_steps(values: NDArray[Any], steps: NDArray[np.float64], origin: NDArray[np.float64]) -> Volume:
        """From the steps in mm, (3, 3), from slice to slice, row to row and column to column."""
        lengths = np.linalg.norm(steps, axis=1)
        if not np.isfinite(steps).all() or not np.isfinite(origin).all() or lengths.min() < 1e-6:
            return Volume(values)
        spacing = (float(lengths[0]), float(lengths[1]), float(lengths[2]))
        axes = steps / lengths[:, None]
        if abs(float(axes[1] @ axes[2])) > 0.02:  # sheared within the plane: no pixel grid of DICOM
            return Volume(values, spacing)
        return Volume(values, spacing, axes, origin)


def slices_of(
    volume: Volume, path: Path, offset: float | None = None, scale: float | None = None
) -> list[CTSlice]:
    """Check an array of HU and cut it into slices.

    Arguments:
        volume: Integers or floats.
        path: Where it came from.
        offset: What was added to the HU before they were stored, for example 1024; None where nobody
            said so: then values that cannot be HU are noticed.
        scale: What the values must be multiplied by before the offset is taken off; None where nobody
            said so.

    Raises:
        ImageError: Not one or more grey slices, not finite, or clearly not HU.
    """
    values = volume.values
    _refuse_shape(values, path)
    if not np.isfinite(values).all():
        raise ImageError(f"{path} holds NaN or infinity; replace them by HU values, -1024 outside the image")
    if scale is None:
        refuse_other_quantities(values, str(path))
    if float(np.abs(values.astype(np.float64)).max()) * abs(scale or 1.0) > 1e6:
        raise ImageError(f"{path} holds values beyond a million, which are no HU; write it anew")
    stack = values[None] if values.ndim == 2 else values
    stated = offset is not None or scale is not None
    told = {"doubt": doubt_of(stack, str(path), stated=stated)}
    told["remark"] = "" if stated or told["doubt"] else remark_on(stack)
    told = {key: words for key, words in told.items() if words}
    return [_slice(volume, stack[k], k, path, offset, scale, told) for k in range(len(stack))]


def _slice(
    volume: Volume,
    stored: NDArray[Any],
    index: int,
    path: Path,
    offset: float | None,
    scale: float | None,
    told: Mapping[str, str],
) -> CTSlice:
    raw = stored.astype(np.float64) * (1.0 if scale is None else scale) - (offset or 0.0)
    hu, valid = mark_outside(raw, None, str(path))
    meta: dict[str, Any] = {"instance": index + 1, "series_description": path.name, **told}
    spacing = volume.spacing
    plane = position = orientation = None
    if spacing is not None:
        plane = (spacing[1], spacing[2])
        if spacing[0] is not None:
            meta["slice_spacing"] = spacing[0]
    if volume.axes is not None:
        orientation = tuple(float(v) for v in (*volume.axes[2], *volume.axes[1]))
        if volume.origin is not None and spacing is not None:
            x, y, z = volume.origin + index * (spacing[0] or 0.0) * volume.axes[0]
            position = (float(x), float(y), float(z))
    return CTSlice(hu, valid, plane, position, orientation, path, meta)


def _refuse_shape(values: NDArray[Any], path: Path) -> None:
    if values.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds {values.dtype} values; give HU as integers or floats")
    if values.ndim not in (2, 3) or values.size == 0:
        raise ImageError(f"{path} has shape {values.shape}; give (H, W) or (slices, H, W)")
    if values.ndim == 3 and values.shape[-1] in (3, 4) and min(values.shape[:2]) > 4:
        raise ImageError(
            f"{path} has shape {values.shape}, a colour picture; give HU, (H, W) or (slices, H, W)"
        )
