"""HU images to derived DICOM CT slices that viewers line up with the original."""

from __future__ import annotations

import io
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .slices import CTSlice
from .template import CT_IMAGE, source_tags

__all__ = ["dicom_file", "encoded", "new_series_uid", "write_dicom"]

_STEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


def new_series_uid() -> str:
    """A fresh series UID, to be shared by the slices written together."""
    from pydicom.uid import generate_uid

    return str(generate_uid())


def write_dicom(
    image: CTSlice | NDArray[Any],
    template: CTSlice | str | Path | None,
    path: str | Path,
    description: str,
    *,
    series_uid: str | None = None,
    instance: int | None = None,
    step: float | None = None,
    deidentify: bool = False,
) -> Path:
    """Write one image as a derived CT slice.

    Patient, study, frame of reference and position are the template's, so that viewers show both
    side by side; the series and instance UIDs are new, the image type is ``DERIVED\\SECONDARY``, and
    the source image is named. Private and overlay elements are left out. The file appears whole or
    not at all.

    Arguments:
        image: (H, W), HU or a quantity in HU such as a standard deviation.
        template: The slice it was computed from; its file must be DICOM. None makes a file without a
            patient, with the geometry of ``image`` if it is a :class:`CTSlice`.
        path: Where to write; the folder must exist.
        description: What the image shows, for the series description (64 characters) and the
            derivation description.
        series_uid: Series to belong to, see :func:`new_series_uid`; a new one where None.
        instance: Number in the series; the template's where None.
        step: HU per stored unit; where None, the smallest of 0.01, 0.02, ... 1 that covers the values.
        deidentify: Leave out of the template's tags what tells the patient, see
            :func:`~ctinv.invariance.data.io.deidentify.basic_profile`.

    Returns:
        The path.

    Raises:
        ImageError: The image is not finite or too large for 16 bits, the template cannot be read or
            has another size, or the path cannot be written.
    """
    data = _derived(
        image,
        template,
        description,
        series_uid=series_uid,
        instance=instance,
        step=step,
        deidentify=deidentify,
    )
    _save(data, Path(path))
    return Path(path)


def dicom_file(
    image: CTSlice | NDArray[Any],
    template: CTSlice | str | Path | None,
    description: str,
    *,
    series_uid: str | None = None,
    instance: int | None = None,
    step: float | None = None,
    deidentify: bool = False,
    synthetic: bool = False,
) -> bytes:
    """What :func:`write_dicom` writes, as bytes.

    Arguments:
        image: See there; so is all that is not named here.
        synthetic: Mark the image as made up, in the image type.

    Raises:
        ImageError: See there.
    """
    return encoded(
        _derived(
            image,
            template,
            description,
            series_uid=series_uid,
            instance=instance,
            step=step,
            deidentify=deidentify,
            synthetic=synthetic,
        ),
        "the DICOM file",
    )


def _derived(
    image: CTSlice | NDArray[Any],
    template: CTSlice | str | Path | None,
    description: str,
    *,
    series_uid: str | None,
    instance: int | None,
    step: float | None,
    deidentify: bool,
    synthetic: bool = False,
) -> Any:
    hu = np.asarray(image.hu if isinstance(image, CTSlice) else image, dtype=np.float64)
    if hu.ndim != 2 or hu.size == 0 or not np.isfinite(hu).all():
        raise ImageError(f"only finite images (H, W) can be written, not {hu.shape} with NaN or infinity")
    stored, slope = _quantise(hu, step)
    dataset = source_tags(image, template, hu.shape, deidentify=deidentify)
    _describe(dataset, description, series_uid or new_series_uid(), instance)
    if synthetic:
        dataset.ImageType = [*dataset.ImageType, "SYNTHETIC"]
    if deidentify:
        del dataset.InstanceCreationDate, dataset.InstanceCreationTime
    _fill(dataset, stored, slope)
    return dataset


def _quantise(hu: NDArray[np.float64], step: float | None) -> tuple[NDArray[np.int16], float]:
    low, high = float(hu.min()), float(hu.max())
    for slope in sorted(_STEPS) if step is None else (step,):
        if slope > 0 and low >= -32768 * slope and high <= 32767 * slope:
            return np.rint(hu / slope).astype(np.int16), slope
    raise ImageError(f"values from {low:g} to {high:g} HU do not fit into 16 bits with step {step or 1.0:g}")


def _describe(dataset: Any, description: str, series_uid: str, instance: int | None) -> None:
    from pydicom.uid import generate_uid

    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = (
        now.strftime("%Y%m%d"),
        now.strftime("%H%M%S"),
    )
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = series_uid
    dataset.Modality = "CT"
    dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    dataset.SeriesDescription = description[:64]
    dataset.DerivationDescription = description[:1024]
    number = dataset.get("SeriesNumber")
    dataset.SeriesNumber = 9000 + (int(number) if number not in (None, "") else 0) % 1000
    if instance is not None:
        dataset.InstanceNumber = instance
    elif dataset.get("InstanceNumber") in (None, ""):
        dataset.InstanceNumber = 1


def _fill(dataset: Any, stored: NDArray[np.int16], slope: float) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    low, high = float(stored.min()) * slope, float(stored.max()) * slope
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 1
    dataset.RescaleSlope = f"{slope:g}"
    dataset.RescaleIntercept = "0"
    dataset.RescaleType = "HU"
    dataset.WindowCenter = f"{(low + high) / 2:.6g}"
    dataset.WindowWidth = f"{max(high - low, 1.0):.6g}"
    if "WindowCenterWidthExplanation" in dataset:
        del dataset.WindowCenterWidthExplanation
    dataset.add_new(0x7FE00010, "OW", stored.astype("<i2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def encoded(dataset: Any, what: str | Path) -> bytes:
    """A data set as the bytes of a file.

    Arguments:
        dataset: A ``pydicom.Dataset`` with its file meta group.
        what: What the message calls it.

    Raises:
        ImageError: Values of the template cannot be written.
    """
    import warnings

    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values of the template that bend the standard
            dataset.save_as(buffer, enforce_file_format=True)
    except Exception as error:
        raise ImageError(f"{what} cannot be written with this template ({error})") from error
    return buffer.getvalue()


def _save(dataset: Any, path: Path) -> None:
    content = encoded(dataset, path)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:16]}-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.write_bytes(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
