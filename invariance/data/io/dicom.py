"""DICOM files to CT slices in HU: classic and enhanced CT, any transfer syntax that pydicom decodes."""

from __future__ import annotations

import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .bombs import inflated_size
from .decode import decode, is_lossy, padding, quiet, to_hu
from .hounsfield import doubt_of, remark_on
from .outside import mark_outside
from .slices import CTSlice
from .tags import floats, line, phase_words, refuse_by_tags, says_deidentified, text

__all__ = ["open_ct", "read_frames"]

_CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
}
_TEXT = {
    "patient": "PatientID",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "series_description": "SeriesDescription",
    "sop_uid": "SOPInstanceUID",
    "kernel": "ConvolutionKernel",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "body_part": "BodyPartExamined",
}
_NUMBERS = {
    "series_number": "SeriesNumber",
    "instance": "InstanceNumber",
    "kvp": "KVP",
    "tube_current": "XRayTubeCurrent",
    "exposure": "Exposure",
    "thickness": "SliceThickness",
}
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META = 4096  # bytes in which the transfer syntax stands
_HARMLESS, _DENSEST = 2**27, 200  # bytes that any deflated file may unfold into, or for each of its own
_DEFER = 2048  # bytes; longer values, pixels above all, stay on disk until asked for


def open_ct(path: Path, pixels: bool | None = True) -> Any:
    """Open a DICOM file and make sure that it is CT.

    Arguments:
        path: The file; the 128-byte preamble and the file meta group may be missing.
        pixels: True to load the pixel data too, False to stop before it, None to know whether it is
            there without loading it.

    Returns:
        A ``pydicom.Dataset``.

    Raises:
        ImageError: Not a DICOM file, cut off, or not CT.
    """
    import pydicom

    _refuse_deflated_bomb(path)
    how: dict[str, Any] = {"defer_size": _DEFER} if pixels is None else {"stop_before_pixels": not pixels}
    try:
        with quiet():
            try:
                dataset = pydicom.dcmread(path, **how)
            except pydicom.errors.InvalidDicomError:
                dataset = pydicom.dcmread(path, **how, force=True)
                if "SOPClassUID" not in dataset and "Modality" not in dataset:
                    raise
            modality = text(dataset, "Modality")
            sop_class = text(dataset, "SOPClassUID")
    except pydicom.errors.InvalidDicomError:
        raise ImageError(f"{path} is not a DICOM file{_guess(path)}; give a CT slice") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror or error}") from error
    except Exception as error:
        raise ImageError(f"{path} is a broken DICOM file ({line(error)}); export it anew") from error
    if modality != "CT" and not (modality == "" and sop_class in _CT_CLASSES):
        raise ImageError(f"{path} is {modality or 'of unknown modality'}, not CT; give a CT slice")
    return dataset


def _refuse_deflated_bomb(path: Path) -> None:
    """Refuse a deflated file, which is unpacked as a whole, that would unfold into far more than it holds.

    Raises:
        ImageError: So it is.
    """
    with suppress(OSError, zlib.error), path.open("rb") as file:
        start = file.read(_META)
        place = start.find(_DEFLATED)
        if start[128:132] != b"DICM" or place < 0:
            return
        end = 144 + int.from_bytes(start[140:144], "little")  # the group's length stands first
        most = max(_HARMLESS, _DENSEST * path.stat().st_size)
        if inflated_size(path, end, most, lambda: zlib.decompressobj(-zlib.MAX_WBITS)) > most:
            raise ImageError(f"{path} unfolds into far more than a scan holds; export it anew")


def read_frames(path: Path, offset: float | None = None, scale: float | None = None) -> list[CTSlice]:
    """Every slice of one DICOM file: one for classic CT, one per frame for multi-frame CT.

    Stored values become HU by the file's rescale slope and intercept or its modality LUT, frame by
    frame. MONOCHROME1 changes how a viewer shows an image, not its HU.

    Arguments:
        path: The file.
        offset: What the user says must be taken off after all; None where nothing was said.
        scale: What the user says the values must be multiplied by before; None where nothing was said.

    Raises:
        ImageError: Not CT, a scout view, colour, cut off, not decodable, or without a way to HU.
    """
    dataset = open_ct(path)
    try:
        with quiet():
            refuse_by_tags(path, dataset)
            stored = decode(path, dataset)
            frames = stored[None] if stored.ndim == 2 else stored
            return [_frame(path, dataset, frames, i, offset, scale) for i in range(len(frames))]
    except ImageError:
        raise
    except Exception as error:  # pydicom converts elements late, so any of them may turn out broken
        raise ImageError(f"{path} is a broken DICOM file ({line(error)}); export it anew") from error


def _frame(
    path: Path, dataset: Any, frames: NDArray[Any], index: int, offset: float | None, scale: float | None
) -> CTSlice:
    groups = _groups(dataset, index)
    stored = frames[index]
    hu = to_hu(path, dataset, groups, stored) * (1.0 if scale is None else scale) - (offset or 0.0)
    doubt = doubt_of(hu, str(path), stated=offset is not None or scale is not None)
    padded = padding(dataset, stored)
    blurred = padded is not None or is_lossy(dataset)
    hu32, valid = mark_outside(hu, padded, str(path), blurred=blurred)
    spacing = floats(_find(dataset, groups, "PixelMeasuresSequence", "PixelSpacing"), 2)
    position = floats(_find(dataset, groups, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = floats(_find(dataset, groups, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    meta = _meta(dataset)
    if doubt:
        meta["doubt"] = doubt
    elif offset is None and scale is None and (remark := remark_on(hu)):
        meta["remark"] = remark
    if len(frames) > 1:
        meta["frame"] = index
        if not any(group.get("PlanePositionSequence") for group in groups):
            position = None  # the file states one place for all its frames
        if phase := _phase(groups):
            meta["phase"] = phase
    if spacing is not None and not all(s > 0 for s in spacing):
        spacing = None
    if orientation is not None and not _perpendicular(orientation):
        orientation = None
    return CTSlice(hu32, valid, spacing, position, orientation, path, meta)  # type: ignore[arg-type]


def _perpendicular(orientation: tuple[float, ...]) -> bool:
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    products = rows @ rows, columns @ columns, rows @ columns
    return bool(np.allclose(products, (1.0, 1.0, 0.0), atol=0.02))


def _phase(groups: list[Any]) -> str:
    """What tells frames at one place apart."""
    for group in groups:
        for name in ("TemporalPositionSequence", "CardiacSynchronizationSequence", "FrameContentSequence"):
            for item in group.get(name) or []:
                words = phase_words(item)
                if words:
                    return next(iter(words.values()))
    return ""


def _groups(dataset: Any, index: int) -> list[Any]:
    """Functional groups of an enhanced frame, the frame's own before the shared ones."""
    own = dataset.get("PerFrameFunctionalGroupsSequence")
    shared = dataset.get("SharedFunctionalGroupsSequence")
    groups = [own[index]] if own and index < len(own) else []
    return groups + ([shared[0]] if shared else [])


def _find(dataset: Any, groups: list[Any], sequence: str, keyword: str) -> Any:
    for group in groups:
        items = group.get(sequence)
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return dataset.get(keyword)


def _meta(dataset: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {}
    for name, keyword in _TEXT.items():
        if value := text(dataset, keyword):
            meta[name] = value
    for name, keyword in _NUMBERS.items():
        if (numbers := floats(dataset.get(keyword), 1)) is not None:
            meta[name] = int(numbers[0]) if numbers[0].is_integer() else numbers[0]
    if says_deidentified(dataset):
        meta["deidentified"] = True
    return meta


def _guess(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError:
        return ""
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " but a web page"
    if start.startswith(b"pk\x03\x04"):
        return " but a zip archive (unpack it)"
    return "" if start else " but empty"
