"""Files that hold arrays: NumPy, MetaImage, NIfTI, NRRD, TIFF; and those that no one reads here."""

from __future__ import annotations

import bz2
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .axes import slices_first
from .bombs import file_beside, inflated_size, refuse_size
from .metaimage import read_metaimage
from .slices import CTSlice
from .tags import line
from .volume import Volume, slices_of

__all__ = ["ARRAY_SUFFIXES", "array_kind", "read_array", "refuse_unread"]

_PICTURES = "is a picture without HU; give DICOM, .npy, .mhd, .nii, .nrrd or .tif in HU"
_ARCHIVE = "is an archive; unpack it and give the folder"
_OTHER = "give .npy, NIfTI, NRRD, MetaImage or DICOM"
_UNREAD = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp", ".gif"), _PICTURES),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz", ".gz"), _ARCHIVE),
    **dict.fromkeys((".raw", ".zraw"), "is bare data without a header; give the .mhd file beside it"),
    **dict.fromkeys((".hdr", ".img"), f"is Analyze 7.5, which is not read; {_OTHER}"),
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".gipl", ".vtk", ".vti"), f"is of a format not read; {_OTHER}"),
    **dict.fromkeys((".mat", ".h5", ".hdf5", ".pt", ".pkl"), f"holds arrays of a format not read; {_OTHER}"),
}


def array_kind(path: Path) -> str | None:
    """The suffix that decides how a file is read, such as ``.npy`` or ``.nii.gz``; None for DICOM."""
    name = path.name.lower()
    return next((suffix for suffix in ARRAY_SUFFIXES if name.endswith(suffix)), None)


def refuse_unread(path: Path) -> None:
    """Refuse files of formats that are not read; a DICOM file may have any name.

    Raises:
        ImageError: Names the format and the mend.
    """
    why = _UNREAD.get(path.suffix.lower())
    if why is not None and not _is_part10(path):
        raise ImageError(f"{path} {why}")


def _is_part10(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_array(path: Path, offset: float | None = None, scale: float | None = None) -> list[CTSlice]:
    """Every slice of a file that holds HU as plain numbers.

    Arguments:
        path: ``.npy`` or ``.npz`` (2-D or slices first), ``.mhd`` or ``.mha``, ``.nii``, ``.nii.gz``,
            ``.nrrd``, ``.nhdr``, ``.tif``.
        offset: What was added to the HU before they were stored, for example 1024; None: not said.
        scale: What the values must be multiplied by first; None: not said.

    Raises:
        ImageError: Not readable, not one or more grey slices, not finite, or clearly not HU.
    """
    kind = array_kind(path)
    if kind is None:
        raise ImageError(f"{path} is not one of {', '.join(ARRAY_SUFFIXES)}")
    try:
        with _hushed():
            volume = ARRAY_SUFFIXES[kind](path)
            return slices_of(volume, path, offset, scale)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or line(error)}") from error
    except Exception as error:
        raise ImageError(f"{path} is not a usable {kind} file ({line(error)}); write it anew") from error


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep the readers' remarks on odd headers away from the user; what matters becomes an error."""
    loggers = [logging.getLogger(name) for name in ("tifffile", "nibabel", "nibabel.global")]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, state in zip(loggers, before, strict=True):
            logger.disabled = state


def _npy(path: Path) -> Volume:
    with path.open("rb") as file:
        if file.read(len(_NUMPY)) == _NUMPY:
            file.seek(0)
            shape, dtype = _announced(file)
            refuse_size(path, shape or (1,), dtype.itemsize)
    return Volume(slices_first(np.load(path, allow_pickle=False), path))


_NUMPY = b"\x93NUMPY"


def _announced(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that the header of a NumPy file announces."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _npz(path: Path) -> Volume:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        images = {name: about for name in archive.files if (about := _image_in(archive, name)) is not None}
        if len(images) != 1:
            raise ImageError(
                f"{path} holds {len(images)} images among {len(archive.files)} arrays "
                f"({', '.join(archive.files[:6])}); save the one with HU alone, as .npy or .npz"
            )
        ((name, (shape, size, held)),) = images.items()
        refuse_size(path, shape or (1,), size, held)
        return Volume(slices_first(archive[name], path))


def _image_in(archive: Any, name: str) -> tuple[tuple[int, ...], int, int] | None:
    """Shape, bytes a value and bytes held, from the header of a member alone.

    None for what is no image beside others: masks of bools, spacings, names.
    """
    member = next(m for m in archive.zip.infolist() if m.filename in (name, f"{name}.npy"))
    with archive.zip.open(member) as inside:
        if inside.read(len(_NUMPY)) != _NUMPY:
            return ((1,), 1, member.compress_size)
        inside.seek(0)
        shape, dtype = _announced(inside)
    beside = len(archive.files) > 1 and (dtype.kind not in "iufc" or sum(side > 4 for side in shape) < 2)
    return None if beside else (shape, dtype.itemsize, member.compress_size)


def _nifti(path: Path) -> Volume:
    try:
        import nibabel  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImageError(f"{path} is NIfTI; install its reader: pip install 'ctinv[formats]'") from error
    image: Any = nibabel.load(path)
    refuse_size(path, image.shape, image.get_data_dtype().itemsize)
    header = image.header
    stated = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    unit = {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    if len(image.shape) == 2:
        image = type(image)(np.asarray(image.dataobj)[..., None], image.affine, header)
    image = nibabel.funcs.as_closest_canonical(image)  # type: ignore[no-untyped-call,unused-ignore]
    data = np.asarray(image.dataobj)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ImageError(f"{path} has shape {data.shape}; give one volume (x, y, slices)")
    # Axes run right, front, up; a slice shows the patient from below, front at the top, right at the left.
    values = np.ascontiguousarray(data[::-1, ::-1].transpose(2, 1, 0))
    column, row, step = (abs(float(v)) * unit for v in image.header.get_zooms()[:3])
    if not stated:
        known = min(column, row, step) > 0.0 and (column, row) != (1.0, 1.0)
        return Volume(values, (step, row, column) if known else None)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    origin = (affine @ [data.shape[0] - 1, data.shape[1] - 1, 0, 1])[:3] * unit
    steps = np.stack([affine[:3, 2], -affine[:3, 1], -affine[:3, 0]]) * unit
    return Volume.from_steps(values, steps, origin)


_SPACES = {  # signs that turn a NRRD space into left, posterior, superior
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}


def _nrrd(path: Path) -> Volume:
    try:
        import nrrd  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImageError(f"{path} is NRRD; install its reader: pip install 'ctinv[formats]'") from error
    _refuse_nrrd(path, nrrd.read_header(str(path)))
    values, header = nrrd.read(str(path), index_order="C")
    values = np.asarray(values)
    spacings = np.asarray(header.get("spacings", []), dtype=np.float64)[::-1]
    signs = _SPACES.get(str(header.get("space", "")).lower())
    directions = np.asarray(header.get("space directions", []), dtype=np.float64)[::-1]
    if values.ndim == 3 and directions.shape == (3, 3):
        if signs is None:
            lengths = np.linalg.norm(directions, axis=1)
            return Volume(values, _distances(lengths))
        origin = np.asarray(header.get("space origin", [np.nan] * 3), dtype=np.float64)
        placed = Volume.from_steps(values, directions * signs, np.nan_to_num(origin) * signs)
        known = bool(np.isfinite(origin).all())
        return placed if known else Volume(values, placed.spacing, placed.axes)
    return Volume(values, _distances(spacings) if len(spacings) == values.ndim else None)


def _refuse_nrrd(path: Path, header: Any) -> None:
    """Refuse what announces too much, and what would unfold into more than it announces.

    Raises:
        ImageError: So it is.
    """
    sizes = [int(v) for v in header.get("sizes", [])]
    name = str(header.get("data file", header.get("datafile", "")))
    file = file_beside(path, name) if name else path
    refuse_size(path, sizes, 8, file.stat().st_size if file.is_file() else _UNKNOWN)
    kind = {"gzip": _gunzip, "gz": _gunzip, "bzip2": bz2.BZ2Decompressor, "bz2": bz2.BZ2Decompressor}.get(
        str(header.get("encoding", "")).lower()
    )
    if kind is None or not file.is_file():
        return
    start = 0 if name else file.read_bytes().find(b"\n\n") + 2
    most = 8 * int(np.prod(sizes, dtype=object)) + _SLACK
    if start > 1 or name:
        skipped = int(header.get("byte skip", header.get("byteskip", 0)) or 0)
        if inflated_size(file, start + max(skipped, 0), most, kind) > most:
            raise ImageError(f"{path} holds more than it announces; its header is broken")


def _gunzip() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


_SLACK = 1 << 20
_UNKNOWN = 1 << 62  # bytes of a data file that is not found; its reader says so


def _distances(lengths: NDArray[np.float64]) -> tuple[float | None, float, float] | None:
    if not np.isfinite(lengths).all() or lengths.size not in (2, 3) or lengths.min() <= 0.0:
        return None
    return (float(lengths[0]) if lengths.size == 3 else None, float(lengths[-2]), float(lengths[-1]))


def _tiff(path: Path) -> Volume:
    try:
        import tifffile  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ImageError(f"{path} is TIFF; install its reader: pip install 'ctinv[formats]'") from error
    with tifffile.TiffFile(path) as file:
        series = file.series
        if not series:
            raise ImageError(f"{path} holds no image; write it anew")
        refuse_size(path, series[0].shape, series[0].dtype.itemsize)
        if len(series) > 1:
            sizes = ", ".join(str(one.shape) for one in series[:6])
            raise ImageError(f"{path} holds {len(series)} images ({sizes}); write each to a file of its own")
        values = np.asarray(series[0].asarray())
        paged = len(series[0].pages) > 1 and values.ndim == 3  # one slice on each page
        return Volume(values if paged else slices_first(values, path))


ARRAY_SUFFIXES: dict[str, Callable[[Path], Volume]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".mhd": read_metaimage,
    ".mha": read_metaimage,
    ".nii": _nifti,
    ".nii.gz": _nifti,
    ".nrrd": _nrrd,
    ".nhdr": _nrrd,
    ".tif": _tiff,
    ".tiff": _tiff,
}
"""How files that are not DICOM are read."""
