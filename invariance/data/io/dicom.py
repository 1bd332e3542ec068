"""DICOM files to CT slices in HU: classic and enhanced CT, any transfer syntax that pydicom decodes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .slices import CTSlice, mark_outside

__all__ = ["is_localizer", "open_ct", "read_frames"]

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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pydicom's remarks on harmless quirks of real files away from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def open_ct(path: Path, pixels: bool = True) -> Any:
    """Open a DICOM file and make sure that it is CT.

    Arguments:
        path: The file; the 128-byte preamble and the file meta group may be missing.
        pixels: Whether to load the pixel data too.

    Returns:
        A ``pydicom.Dataset``.

    Raises:
        ImageError: Not a DICOM file, cut off, or not CT.
    """
    import pydicom

    try:
        with _quiet():
            try:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
            except pydicom.errors.InvalidDicomError:
                dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
                if "SOPClassUID" not in dataset and "Modality" not in dataset:
                    raise
            modality = _text(dataset, "Modality")
            sop_class = _text(dataset, "SOPClassUID")
    except pydicom.errors.InvalidDicomError:
        raise ImageError(f"{path} is not a DICOM file{_guess(path)}; give a CT slice") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror or error}") from error
    except Exception as error:
        raise ImageError(f"{path} is a broken DICOM file ({_line(error)}); export it anew") from error
    if modality != "CT" and not (modality == "" and sop_class in _CT_CLASSES):
        raise ImageError(f"{path} is {modality or 'of unknown modality'}, not CT; give a CT slice")
    return dataset


def is_localizer(dataset: Any) -> bool:
    """Whether the file is a scout view, not a slice."""
    return "LOCALIZER" in [str(v).upper() for v in _values(dataset.get("ImageType"))]


def read_frames(path: Path) -> list[CTSlice]:
    """Every slice of one DICOM file: one for classic CT, one per frame for multi-frame CT.

    Stored values become HU by the file's rescale slope and intercept or its modality LUT, frame by
    frame. MONOCHROME1 changes how a viewer shows an image, not its HU.

    Raises:
        ImageError: Not CT, a scout view, colour, cut off, not decodable, or without a way to HU.
    """
    dataset = open_ct(path)
    if is_localizer(dataset):
        raise ImageError(f"{path} is a scout view (localizer), not a slice; give an axial CT slice")
    if int(dataset.get("SamplesPerPixel", 1) or 1) != 1:
        kind = _text(dataset, "PhotometricInterpretation") or "colour"
        raise ImageError(f"{path} holds a {kind} picture, not HU; give the original CT slice")
    stored = _decode(path, dataset)
    frames = stored[None] if stored.ndim == 2 else stored
    return [_frame(path, dataset, frames[i], i, len(frames)) for i in range(len(frames))]


def _frame(path: Path, dataset: Any, stored: NDArray[Any], index: int, count: int) -> CTSlice:
    groups = _groups(dataset, index)
    hu = _to_hu(path, dataset, groups, stored)
    hu, valid = mark_outside(hu, _padding(dataset, stored), str(path))
    spacing = _floats(_find(dataset, groups, "PixelMeasuresSequence", "PixelSpacing"), 2)
    position = _floats(_find(dataset, groups, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _floats(_find(dataset, groups, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    meta = _meta(dataset)
    if count > 1:
        meta["frame"] = index
    if spacing is not None and not all(s > 0 for s in spacing):
        spacing = None
    return CTSlice(hu, valid, spacing, position, orientation, path, meta)  # type: ignore[arg-type]


def _decode(path: Path, dataset: Any) -> NDArray[Any]:
    """Stored values, (H, W) or (frames, H, W)."""
    import pydicom

    if "PixelData" not in dataset:
        raise ImageError(f"{path} holds no pixel data; give a CT slice")
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        implicit, little = dataset.original_encoding
        uid = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        if not hasattr(dataset, "file_meta"):
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else uid
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        with _quiet():
            stored: NDArray[Any] = dataset.pixel_array
    except (RuntimeError, NotImplementedError, ImportError) as error:
        if "depend" in str(error) or isinstance(error, NotImplementedError | ImportError):
            raise ImageError(
                f"{path} is compressed ({syntax.name}); install the decoders: pip install 'ctinv[dicom]'"
            ) from error
        raise ImageError(f"{path} cannot be decoded ({_line(error)}); export it anew") from error
    except Exception as error:
        raise ImageError(f"{path} is cut off or corrupt ({_line(error)}); export it anew") from error
    if stored.ndim not in (2, 3) or stored.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds {stored.dtype} data of shape {stored.shape}, not CT slices")
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _to_hu(path: Path, dataset: Any, groups: list[Any], stored: NDArray[Any]) -> NDArray[Any]:
    from pydicom.pixels import apply_modality_lut

    source = dataset
    for group in groups:
        transform = group.get("PixelValueTransformationSequence")
        if transform:
            source = transform[0]
            break
    rescale = _text(source, "RescaleType").upper()
    if rescale not in ("", "HU", "US"):
        raise ImageError(f"{path} holds values of type {rescale}, not HU; give the CT image itself")
    has_slope = source.get("RescaleSlope") is not None and source.get("RescaleIntercept") is not None
    if not has_slope and not source.get("ModalityLUTSequence"):
        raise ImageError(
            f"{path} has no rescale slope and intercept, so its values are not HU; export it anew"
        )
    try:
        with _quiet():
            hu: NDArray[Any] = np.asarray(apply_modality_lut(stored, source), dtype=np.float64)
    except Exception as error:
        raise ImageError(f"{path} has an unusable rescale or modality LUT ({_line(error)})") from error
    if not np.isfinite(hu).all():
        raise ImageError(f"{path} holds values that are not finite after rescaling; export it anew")
    return hu


def _padding(dataset: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Pixels declared as padding; the value's sign may be lost in files with the wrong VR."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    bits = int(dataset.get("BitsAllocated", 16))
    signed = int(dataset.get("PixelRepresentation", 0)) == 1

    def as_stored(raw: Any) -> int:
        if isinstance(raw, bytes):
            raw = int.from_bytes(raw[:2], "little")
        number = int(raw) & ((1 << bits) - 1)
        return number - (1 << bits) if signed and number >> (bits - 1) else number

    first = as_stored(value)
    limit = dataset.get("PixelPaddingRangeLimit")
    last = first if limit is None else as_stored(limit)
    return np.asarray((stored >= min(first, last)) & (stored <= max(first, last)))


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
        if text := _text(dataset, keyword):
            meta[name] = text
    for name, keyword in _NUMBERS.items():
        if (numbers := _floats(dataset.get(keyword), 1)) is not None:
            meta[name] = int(numbers[0]) if numbers[0].is_integer() else numbers[0]
    return meta


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def _text(dataset: Any, keyword: str) -> str:
    return "\\".join(str(v).strip() for v in _values(dataset.get(keyword))).strip("\0 ")


def _floats(value: Any, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(v) for v in _values(value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def _guess(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return " but a web page"
    if not start:
        return " but empty"
    return ""
