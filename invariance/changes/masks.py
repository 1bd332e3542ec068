"""Regions that users mark in a file: arrays, pictures, NIfTI, NRRD, MetaImage and DICOM segmentations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.arrays import ARRAY_SUFFIXES, array_kind
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.data.io.tags import line
from ctinv.invariance.data.io.volume import Volume
from ctinv.invariance.refinement.sight import Mask

__all__ = ["read_mask"]

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_PICTURES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg")
_APART = 0.1  # mm, or as a share of the axes' unit: what differs by less is the same plane
_HALF = 0.5  # of a fraction


def read_mask(path: str | Path, image: CTSlice | tuple[int, int]) -> Mask:
    """Read a region from a file: what is not 0 is inside.

    Of a volume (NIfTI, NRRD, MetaImage) and of a DICOM segmentation, whose frames may be many, that part
    is taken that lies in the slice's plane; of a segmentation, all its segments together.

    Arguments:
        path: A NumPy array (``.npy``), a grey picture, a NIfTI, NRRD or MetaImage file, or a DICOM
            segmentation; as large as the slice.
        image: The slice, or its height and width, which do for files of one plane.

    Returns:
        Bool (H, W).

    Raises:
        ImageError: It cannot be read, has another shape, has no plane of the slice, or is empty.
    """
    path = Path(path)
    shape = image.shape if isinstance(image, CTSlice) else image
    try:
        values = _values(path, image if isinstance(image, CTSlice) else None)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"{path} is no mask that can be read ({line(error)}); give .npy, a grey PNG, NIfTI, NRRD, "
            "MetaImage or a DICOM segmentation"
        ) from error
    if values.shape != shape:
        raise ImageError(
            f"the mask {path} is {values.shape}, the slice {shape}; give a mask of the slice's size"
        )
    inside = np.asarray(values != 0)
    if not inside.any():
        raise ImageError(f"the mask {path} is empty; mark the region with values that are not 0")
    return inside


def _values(path: Path, one: CTSlice | None) -> npt.NDArray[Any]:
    if path.suffix.lower() in _PICTURES:
        from PIL import Image as Picture

        with Picture.open(path) as opened:
            return np.asarray(opened.convert("F") if opened.mode not in ("1", "L", "I") else opened)
    kind = array_kind(path)
    if kind is None:
        return _segmentation(path, one)
    return _plane(ARRAY_SUFFIXES[kind](path), path, one)


def _plane(volume: Volume, path: Path, one: CTSlice | None) -> npt.NDArray[Any]:
    """The plane of a volume that the slice lies in; the only one where there is one."""
    values = volume.values
    if values.ndim == 2 or len(values) == 1:
        return values.reshape(values.shape[-2:])
    if one is None or one.position is None or one.orientation is None or volume.axes is None:
        raise ImageError(
            f"the mask {path} holds {len(values)} planes, and which is the slice's cannot be told; give that "
            "plane alone, or a slice and a mask that state where they lie"
        )
    if volume.origin is None or volume.spacing is None or volume.spacing[0] is None:
        raise ImageError(f"the mask {path} does not state where it lies; give the slice's plane alone")
    offset = np.asarray(one.position) - volume.origin
    number = float(offset @ volume.axes[0]) / volume.spacing[0]
    aside = [float(offset @ axis) for axis in volume.axes[1:]]
    turned = np.abs(np.concatenate([volume.axes[2], volume.axes[1]]) - np.asarray(one.orientation)).max()
    near = abs(number - round(number)) * volume.spacing[0] <= _APART and max(map(abs, aside)) <= _APART
    if turned > _APART or not near or not 0 <= round(number) < len(values):
        raise ImageError(
            f"no plane of the mask {path} lies in the slice's; give a mask drawn on the slice's own series"
        )
    return values[round(number)]


def _segmentation(path: Path, one: CTSlice | None) -> npt.NDArray[Any]:
    """All segments of a DICOM segmentation in the slice's plane."""
    import pydicom

    file = pydicom.dcmread(path)
    if str(file.get("SOPClassUID", "")) != _SEGMENTATION:
        raise ImageError(f"{path} is no DICOM segmentation; give one, or a mask as .npy, PNG, NIfTI or NRRD")
    pixels = np.asarray(file.pixel_array)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    least = _HALF * float(file.MaximumFractionalValue) if file.SegmentationType == "FRACTIONAL" else 0.5
    frames = [k for k in range(len(pixels)) if one is None or _shows(file, k, one)]
    if one is None and len(pixels) > 1:
        raise ImageError(f"{path} holds {len(pixels)} frames; which is the slice's is told by a DICOM slice")
    if not frames:
        raise ImageError(
            f"no frame of the segmentation {path} is of this slice; give one drawn on the slice's own series"
        )
    return np.asarray((pixels[frames] >= least).any(0))


def _shows(file: Any, frame: int, one: CTSlice) -> bool:
    """Whether a frame names the slice as its source or, where it names none, lies in its plane."""
    own = file.PerFrameFunctionalGroupsSequence[frame]
    named = [
        str(source.ReferencedSOPInstanceUID)
        for derivation in own.get("DerivationImageSequence", [])
        for source in derivation.get("SourceImageSequence", [])
    ]
    if named and "sop_uid" in one.meta:
        return str(one.meta["sop_uid"]) in named
    places = own.get("PlanePositionSequence") or file.SharedFunctionalGroupsSequence[0].get(
        "PlanePositionSequence", []
    )
    if not places or one.position is None:
        return False
    apart = np.asarray(places[0].ImagePositionPatient, dtype=float) - np.asarray(one.position)
    return float(np.abs(apart).max()) <= _APART
