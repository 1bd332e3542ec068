"""Slices from files that hold arrays: NumPy, MetaImage, NIfTI, TIFF."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .slices import CTSlice, mark_outside

__all__ = ["ARRAY_SUFFIXES", "array_kind", "read_array", "slices_of"]

_Loaded = tuple[NDArray[Any], tuple[float, ...] | None]  # (slices, H, W) and spacing (slice, row, column)

_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def array_kind(path: Path) -> str | None:
    """The suffix that decides how a file is read, such as ``.npy`` or ``.nii.gz``; None for DICOM."""
    name = path.name.lower()
    return next((suffix for suffix in ARRAY_SUFFIXES if name.endswith(suffix)), None)


def read_array(path: Path, offset: float = 0.0) -> list[CTSlice]:
    """Every slice of a file that holds HU as plain numbers.

    Arguments:
        path: ``.npy`` (2-D or slices first), ``.mhd`` or ``.mha``, ``.nii``, ``.nii.gz``, ``.tif``.
        offset: What was added to the HU before they were stored, for example 1024.

    Raises:
        ImageError: Not readable, not one or more grey slices, not finite, or clearly not HU.
    """
    kind = array_kind(path)
    if kind is None:
        raise ImageError(f"{path} is not one of {', '.join(ARRAY_SUFFIXES)}")
    try:
        volume, spacing = ARRAY_SUFFIXES[kind](path)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ImageError(f"{path} is not a usable {kind} file ({reason}); write it anew") from error
    return slices_of(volume, spacing, path, offset)


def slices_of(
    volume: NDArray[Any], spacing: tuple[float, ...] | None, path: Path, offset: float = 0.0
) -> list[CTSlice]:
    """Check an array of HU and cut it into slices.

    Arguments:
        volume: (H, W) or (slices, H, W), integers or floats.
        spacing: Slice, row and column spacing in mm, or None.
        path: Where it came from.
        offset: See :func:`read_array`.

    Raises:
        ImageError: See :func:`read_array`.
    """
    if volume.dtype.kind not in "iuf":
        raise ImageError(f"{path} holds {volume.dtype} values; give HU as integers or floats")
    if volume.ndim not in (2, 3) or volume.size == 0:
        raise ImageError(f"{path} has shape {volume.shape}; give (H, W) or (slices, H, W)")
    if volume.ndim == 3 and volume.shape[-1] in (3, 4) and min(volume.shape[:2]) > 4:
        raise ImageError(
            f"{path} has shape {volume.shape}, a colour picture; give HU, (H, W) or (slices, H, W)"
        )
    if not np.isfinite(volume).all():
        raise ImageError(f"{path} holds NaN or infinity; replace them by HU values, -1024 outside the image")
    low, high = float(volume.min()), float(volume.max())
    if low >= 0.0 and 0.0 < high <= 1.0:
        raise ImageError(f"{path} spans {low:g} to {high:g}, which is not HU; undo the scaling first")
    stack = volume[None] if volume.ndim == 2 else volume
    slices = []
    for index, stored in enumerate(stack):
        hu, valid = mark_outside(stored.astype(np.float64) - offset, None, str(path))
        meta: dict[str, Any] = {"instance": index + 1, "series_description": path.name}
        if low >= 0.0 and high > 200.0 and not offset:
            meta["note"] = "no value is negative: these may be HU + 1000 or HU + 1024 (offset)"
        position = (0.0, 0.0, index * spacing[0]) if spacing else None
        orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) if spacing else None
        plane = (spacing[1], spacing[2]) if spacing else None
        slices.append(CTSlice(hu, valid, plane, position, orientation, path, meta))
    return slices


def _npy(path: Path) -> _Loaded:
    return np.load(path, allow_pickle=False), None


def _metaimage(path: Path) -> _Loaded:
    header, data = _meta_header(path)
    if header.get("compresseddata", "false").lower() == "true":
        raise ImageError(f"{path} is compressed MetaImage; write it without compression")
    dims = [int(v) for v in header["dimsize"].split()]
    kind = header["elementtype"].upper()
    if kind not in _META_TYPES or int(header.get("elementnumberofchannels", "1")) != 1:
        raise ImageError(f"{path} holds {kind}; known are: {', '.join(_META_TYPES)}, one channel")
    big = "true" in (
        header.get("elementbyteordermsb", "").lower(),
        header.get("binarydatabyteordermsb", "").lower(),
    )
    dtype = np.dtype(_META_TYPES[kind]).newbyteorder(">" if big else "<")
    blob = data if data is not None else b"".join(p.read_bytes() for p in _data_files(path, header, dims))
    count = int(np.prod(dims))
    if len(blob) != count * dtype.itemsize:
        size = " x ".join(map(str, dims))
        raise ImageError(
            f"{path} announces {size} pixels, {count * dtype.itemsize} bytes, but has {len(blob)}"
        )
    volume = np.frombuffer(blob, dtype).reshape(dims[::-1]).astype(dtype.newbyteorder("="))
    text = header.get("elementspacing") or header.get("elementsize")
    values = tuple(float(v) for v in text.split())[::-1] if text else None
    if values is not None and len(values) == 2:
        values = (1.0, *values)
    return volume, values


def _meta_header(path: Path) -> tuple[dict[str, str], bytes | None]:
    blob = path.read_bytes()
    header: dict[str, str] = {}
    start = 0
    while "elementdatafile" not in header:
        end = blob.find(b"\n", start)
        line = blob[start : end if end >= 0 else len(blob)].decode("ascii")
        key, found, value = line.partition("=")
        if found:
            header[key.strip().lower()] = value.strip()
        if end < 0:
            break
        start = end + 1
    for key in ("dimsize", "elementtype", "elementdatafile"):
        if key not in header:
            raise ImageError(f"{path} is not a MetaImage header: it has no {key}")
    return header, blob[start:] if header["elementdatafile"].upper() == "LOCAL" else None


def _data_files(path: Path, header: dict[str, str], dims: list[int]) -> list[Path]:
    words = header["elementdatafile"].split()
    if words[0].upper() == "LIST":
        raise ImageError(f"{path} lists its data files inside the header; use a pattern or one .raw file")
    if "%" in words[0]:
        numbers = [int(w) for w in words[1:4]]
        first, last, step = (*numbers, 1, dims[-1], 1)[:3] if not numbers else (*numbers, 1)[:3]
        names = [words[0] % i for i in range(first, last + 1, step)]
    else:
        names = [header["elementdatafile"]]
    files = [path.parent / name for name in names]
    for file in files:
        if not file.is_file():
            raise ImageError(f"{path} needs {file.name} beside it, which is missing")
    return files


def _nifti(path: Path) -> _Loaded:
    try:
        import nibabel  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImageError(f"{path} is NIfTI; install its reader: pip install 'ctinv[formats]'") from error
    image = nibabel.as_closest_canonical(nibabel.load(path))
    data = np.asarray(image.dataobj)
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim != 3:
        raise ImageError(f"{path} has shape {data.shape}; give one volume (x, y, slices)")
    column, row, step = (float(v) for v in image.header.get_zooms()[:3])
    # Axes run right, front, up; a slice shows the patient from below, front at the top, right at the left.
    return np.ascontiguousarray(data[::-1, ::-1].transpose(2, 1, 0)), (step, row, column)


def _tiff(path: Path) -> _Loaded:
    try:
        import tifffile  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImageError(f"{path} is TIFF; install its reader: pip install 'ctinv[formats]'") from error
    return np.asarray(tifffile.imread(path)), None


ARRAY_SUFFIXES: dict[str, Callable[[Path], _Loaded]] = {
    ".npy": _npy,
    ".mhd": _metaimage,
    ".mha": _metaimage,
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".tif": _tiff,
    ".tiff": _tiff,
}
"""How files that are not DICOM are read."""
