"""Stored values of a DICOM file, and the way from them to HU."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .bombs import refuse_size
from .tags import floats, line, text, values

__all__ = ["decode", "is_lossy", "padding", "quiet", "refuse_without_rescale", "to_hu"]

_LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.203",  # HTJ2K
}
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on harmless quirks of real files away from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: Path, dataset: Any) -> NDArray[Any]:
    """Stored values, (H, W) or (frames, H, W).

    Raises:
        ImageError: Cut off, not decodable, or no grey values.
    """
    import pydicom

    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        implicit, little = dataset.original_encoding
        uid = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        if not hasattr(dataset, "file_meta"):
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else uid
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        _refuse_excess(path, dataset)
    _refuse_bomb(path, dataset)
    try:
        with quiet():
            stored: NDArray[Any] = dataset.pixel_array
    except (RuntimeError, NotImplementedError, ImportError) as error:
        if "depend" in str(error) or isinstance(error, NotImplementedError | ImportError):
            raise ImageError(
                f"{path} is compressed ({syntax.name}); install the decoders: pip install 'ctinv[dicom]'"
            ) from error
        raise ImageError(f"{path} cannot be decoded ({line(error)}); export it anew") from error
    except Exception as error:
        raise ImageError(f"{path} is cut off or corrupt ({line(error)}); export it anew") from error
    if stored.ndim not in (2, 3) or stored.size == 0 or stored.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds {stored.dtype} data of shape {stored.shape}, not CT slices")
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _refuse_bomb(path: Path, dataset: Any) -> None:
    """Refuse sizes that the pixel data cannot have, before anything is unpacked.

    Raises:
        ImageError: See :func:`ctinv.invariance.data.io.bombs.refuse_size`.
    """
    sizes = [floats(dataset.get(name), 1) for name in ("NumberOfFrames", "Rows", "Columns")]
    if sizes[1] is None or sizes[2] is None:
        return
    samples = floats(dataset.get("SamplesPerPixel"), 1) or (1.0,)
    shape = [int(size[0]) for size in (sizes[0] or (1.0,), sizes[1], sizes[2], samples)]
    held = max(map(len, (dataset.get(name) or b"" for name in _PIXELS)))
    refuse_size(path, shape, 2, held)


def _refuse_excess(path: Path, dataset: Any) -> None:
    """Refuse more bytes than the stated size has: with a wrong width every row would be shifted.

    Raises:
        ImageError: A row or more is left over.
    """
    sizes = [floats(dataset.get(name), 1) for name in ("Rows", "Columns", "BitsAllocated")]
    frames = floats(dataset.get("NumberOfFrames"), 1) or (1.0,)
    if any(size is None for size in sizes):
        return
    rows, columns, bits = (int(size[0]) for size in sizes if size is not None)
    held, row = len(dataset.get("PixelData", b"")), columns * bits // 8
    if held - rows * row * int(frames[0]) >= max(row, 2):
        raise ImageError(
            f"{path} contradicts itself: {rows} x {columns} pixels of {bits} bits, but {held} bytes; "
            "export it anew"
        )


def to_hu(path: Path, dataset: Any, groups: list[Any], stored: NDArray[Any]) -> NDArray[np.float64]:
    """Stored values to HU by rescale slope and intercept or by the modality LUT.

    Arguments:
        path: For the refusal.
        dataset: The file.
        groups: The functional groups of the frame, its own first.
        stored: (H, W).

    Raises:
        ImageError: No way to HU, another quantity, or tags that contradict each other.
    """
    from pydicom.pixels import apply_modality_lut

    transforms = [group.get("PixelValueTransformationSequence") for group in groups]
    source = next((sequence[0] for sequence in transforms if sequence), dataset)
    rescale = text(source, "RescaleType").upper()
    if rescale not in ("", "HU", "US"):
        raise ImageError(f"{path} holds values of type {rescale}, not HU; give the CT image itself")
    slope = _way_to_hu(path, source)
    lut = bool(source.get("ModalityLUTSequence"))
    if slope is not None and lut and slope != (1.0, 0.0):
        raise ImageError(f"{path} has both a rescale slope and a modality LUT; export it anew")
    outer = None if source is dataset else _rescale(path, dataset)
    if outer is not None and slope is not None and outer != slope:
        raise ImageError(f"{path} states two rescales, {slope} and {outer}; export it anew")
    try:
        with quiet():
            hu: NDArray[Any] = np.asarray(apply_modality_lut(stored, source), dtype=np.float64)
    except Exception as error:
        raise ImageError(f"{path} has an unusable rescale or modality LUT ({line(error)})") from error
    if not np.isfinite(hu).all() or float(np.abs(hu).max()) > 1e6:
        raise ImageError(
            f"{path} holds values after rescaling that are not finite or beyond a million; export it anew"
        )
    return hu


def refuse_without_rescale(path: Path, dataset: Any) -> None:
    """Refuse a classic file that states no way to HU; a multi-frame one states it frame by frame.

    Raises:
        ImageError: No rescale, or an unusable one.
    """
    if not dataset.get("SharedFunctionalGroupsSequence") and not dataset.get(
        "PerFrameFunctionalGroupsSequence"
    ):
        _way_to_hu(path, dataset)


def _way_to_hu(path: Path, source: Any) -> tuple[float, float] | None:
    """Slope and intercept; None where a modality LUT takes their place."""
    slope = _rescale(path, source)
    if slope is None and not source.get("ModalityLUTSequence"):
        raise ImageError(
            f"{path} has no rescale slope and intercept, so its values are not HU; export it anew"
        )
    return slope


def _rescale(path: Path, source: Any) -> tuple[float, float] | None:
    """Slope and intercept; None where one of them is absent."""
    given = [source.get(keyword) for keyword in ("RescaleSlope", "RescaleIntercept")]
    if any(not values(value) for value in given):
        return None
    numbers = [floats(value, 1) for value in given]
    if numbers[0] is None or numbers[1] is None:
        raise ImageError(
            f"{path} has rescale slope {_shown(given[0])} and intercept {_shown(given[1])}; "
            "one number each is needed; export it anew"
        )
    slope, intercept = numbers[0][0], numbers[1][0]
    if slope <= 0.0:
        raise ImageError(f"{path} has rescale slope {slope:g}, which must be positive; export it anew")
    return slope, intercept


def _shown(value: Any) -> str:
    return "\\".join(str(v) for v in values(value))[:40]


def is_lossy(dataset: Any) -> bool:
    """Whether values were changed by compression, now or before, as far as the file says."""
    syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", ""))
    return text(dataset, "LossyImageCompression") == "01" or syntax in _LOSSY_SYNTAXES


def padding(dataset: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Pixels declared as padding; the value's sign may be lost in files with the wrong VR."""
    value = dataset.get("PixelPaddingValue")
    if not _countable(value):
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
    last = as_stored(limit) if _countable(limit) else first
    return np.asarray((stored >= min(first, last)) & (stored <= max(first, last)))


def _countable(value: Any) -> bool:
    return isinstance(value, bytes) or floats(value, 1) is not None
