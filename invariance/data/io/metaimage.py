"""MetaImage (.mhd, .mha): header, data beside it or inside, compressed or not."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .bombs import MOST_VALUES, file_beside, refuse_size
from .volume import Volume

__all__ = ["read_metaimage"]

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


def read_metaimage(path: Path) -> Volume:
    """Values and geometry; where the header states no matrix or no place, these are None.

    The rows of ``TransformMatrix`` are the directions of the axes, fastest first, in patient
    coordinates (left, posterior, superior).

    Raises:
        ImageError: Keys are missing, unknown or contradict the data.
    """
    header, data = _header(path)
    dims = [int(v) for v in header["dimsize"].split()]
    kind = header["elementtype"].upper()
    if kind not in _TYPES or int(header.get("elementnumberofchannels", "1")) != 1:
        raise ImageError(f"{path} holds {kind}; known are: {', '.join(_TYPES)}, one channel")
    count = int(np.prod(dims, dtype=object)) if dims else 0
    if len(dims) not in (2, 3) or min(dims) < 1 or count > MOST_VALUES:
        raise ImageError(f"{path} has DimSize {header['dimsize']}; give two or three positive numbers")
    if header.get("ndims", str(len(dims))) != str(len(dims)):
        raise ImageError(f"{path} has NDims {header['ndims']} but DimSize {header['dimsize']}; write it anew")
    big = "true" in (
        header.get("elementbyteordermsb", "").lower(),
        header.get("binarydatabyteordermsb", "").lower(),
    )
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if big else "<")
    wanted = count * dtype.itemsize
    files = [] if data is not None else _data_files(path, header, dims)
    parts = len(files) or 1
    held = len(data) if data is not None else sum(file.stat().st_size for file in files)
    refuse_size(path, dims, dtype.itemsize, held)
    if wanted % parts:
        raise ImageError(f"{path} has {dims[-1]} slices in {parts} data files; list one file for each slice")
    if held > wanted + max(wanted, parts << 20):
        raise _contradiction(path, dims, wanted, held)
    blobs = [data] if data is not None else (file.read_bytes() for file in files)
    blob = b"".join(_values(path, header, dims, one, wanted // parts) for one in blobs)
    values = np.frombuffer(blob, dtype).reshape(dims[::-1]).astype(dtype.newbyteorder("="))
    return _placed(values, header, len(dims))


def _values(path: Path, header: dict[str, str], dims: list[int], blob: bytes, wanted: int) -> bytes:
    """What one data file holds beside a header of its own, unpacked.

    Raises:
        ImageError: Another number of bytes than announced.
    """
    skip = int(header.get("headersize", "0"))
    if skip:
        blob = blob[len(blob) - wanted :] if skip == -1 else blob[skip:]
    if header.get("compresseddata", "false").lower() == "true":
        blob = zlib.decompressobj().decompress(blob, wanted + 1)
    if len(blob) != wanted:
        raise _contradiction(path, dims, wanted, len(blob))
    return blob


def _contradiction(path: Path, dims: list[int], wanted: int, held: int) -> ImageError:
    size = " x ".join(map(str, dims))
    return ImageError(f"{path} announces {size} pixels, {wanted} bytes, but has {held}")


def _placed(values: NDArray[np.generic], header: dict[str, str], dims: int) -> Volume:
    text = header.get("elementspacing") or header.get("elementsize")
    spacing = _numbers(text, dims)
    if spacing is None or spacing.min() <= 0.0:
        return Volume(values)
    distances = (float(spacing[2]) if dims == 3 else None, float(spacing[1]), float(spacing[0]))
    matrix = _numbers(_first(header, "transformmatrix", "rotation", "orientation"), dims * dims)
    origin = _numbers(_first(header, "offset", "position", "origin"), dims)
    if dims != 3 or matrix is None:
        return Volume(values, distances)
    axes = matrix.reshape(3, 3)[::-1]
    if not np.allclose(axes @ axes.T, np.eye(3), atol=0.02):
        return Volume(values, distances)
    return Volume(values, distances, axes, origin)


def _first(header: dict[str, str], *keys: str) -> str | None:
    return next((header[key] for key in keys if key in header), None)


def _numbers(text: str | None, count: int) -> NDArray[np.float64] | None:
    if text is None:
        return None
    try:
        numbers = np.array([float(v) for v in text.split()])
    except ValueError:
        return None
    return numbers if len(numbers) == count and bool(np.isfinite(numbers).all()) else None


def _header(path: Path) -> tuple[dict[str, str], bytes | None]:
    """Keys in lower case, and the data where they follow; names that a list gives, under ``list``."""
    blob = path.read_bytes()
    header: dict[str, str] = {}
    start = 0
    while "elementdatafile" not in header:
        end = blob.find(b"\n", start)
        line = blob[start : end if end >= 0 else len(blob)].decode("ascii")
        key, equals, value = line.partition("=")
        if equals:
            header[key.strip().lower()] = value.strip()
        start = end + 1 if end >= 0 else len(blob)
        if end < 0:
            break
    for key in ("dimsize", "elementtype", "elementdatafile"):
        if key not in header:
            raise ImageError(f"{path} is not a MetaImage header: it has no {key}")
    kind = header["elementdatafile"].upper()
    if kind.split()[:1] == ["LIST"]:
        header["list"] = blob[start:].decode("utf-8", "replace")
        if not header["list"].replace("\r", "").replace("\n", "").isprintable():
            raise ImageError(
                f"{path} has data where names of files should stand; write LOCAL in place of LIST"
            )
    return header, blob[start:] if kind == "LOCAL" else None


def _data_files(path: Path, header: dict[str, str], dims: list[int]) -> list[Path]:
    """The files that hold the data, in order: one, those of a list, or of a pattern such as ``s%03d.raw``.

    Raises:
        ImageError: The header names none, too many, or some that are not there.
    """
    words = header["elementdatafile"].split()
    if "list" in header:
        names = [line.strip() for line in header["list"].splitlines() if line.strip()]
    elif words and "%" in words[0]:
        names = _numbered(words, dims[-1])
        if not names:
            raise ImageError(
                f"{path} names its data files by {header['elementdatafile']!r}; write a pattern and its "
                f"numbers for {dims[-1]} slices, as in slice%03d.raw 1 {dims[-1]} 1"
            )
    else:
        names = [header["elementdatafile"]] if words else []
    if not names or len(names) > dims[-1]:
        raise ImageError(f"{path} lists {len(names)} data files for {dims[-1]} slices; write it anew")
    files = [file_beside(path, name) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ImageError(
            f"{path} needs {missing[0]}{more} beside it, which is missing; copy all its data files there"
        )
    return files


def _numbered(words: list[str], most: int) -> list[str]:
    """The names of a pattern with first and last number and step; none where it is none, or too long."""
    numbers = words[1:4]
    pattern = re.fullmatch(r"[^%]*%0?\d{0,2}d[^%]*", words[0])
    if pattern is None or not all(re.fullmatch(r"-?\d+", n) for n in numbers):
        return []
    first, last, step = (*map(int, numbers), *(1, most, 1)[len(numbers) :])
    numbered = range(first, last + 1, step) if step else range(0)
    return [words[0] % i for i in numbered] if len(numbered) <= most else []
