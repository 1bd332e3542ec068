"""HU images to derived DICOM CT slices that viewers line up with the original."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .decode import quiet
from .deidentify import basic_profile
from .dicom import open_ct
from .slices import CTSlice

__all__ = ["new_series_uid", "write_dicom"]

_STEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_GONE = (
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "IconImageSequence",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
    "InstanceCreatorUID",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "ReferencedImageSequence",
)
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


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
    hu = np.asarray(image.hu if isinstance(image, CTSlice) else image, dtype=np.float64)
    if hu.ndim != 2 or hu.size == 0 or not np.isfinite(hu).all():
        raise ImageError(f"only finite images (H, W) can be written, not {hu.shape} with NaN or infinity")
    stored, slope = _quantise(hu, step)
    dataset = _blank(image) if template is None else _from_template(template)
    _check_size(dataset, hu.shape)
    dataset = _kept(dataset)
    if deidentify:
        with quiet():
            basic_profile(dataset)
    _describe(dataset, description, series_uid or new_series_uid(), instance)
    if deidentify:
        del dataset.InstanceCreationDate, dataset.InstanceCreationTime
    _fill(dataset, stored, slope)
    _save(dataset, Path(path))
    return Path(path)


def _quantise(hu: NDArray[np.float64], step: float | None) -> tuple[NDArray[np.int16], float]:
    low, high = float(hu.min()), float(hu.max())
    for slope in sorted(_STEPS) if step is None else (step,):
        if slope > 0 and low >= -32768 * slope and high <= 32767 * slope:
            return np.rint(hu / slope).astype(np.int16), slope
    raise ImageError(f"values from {low:g} to {high:g} HU do not fit into 16 bits with step {step or 1.0:g}")


def _from_template(template: CTSlice | str | Path) -> Any:
    source = template.source if isinstance(template, CTSlice) else Path(template)
    if source is None:
        raise ImageError("the template slice came from no file; give a DICOM file, or None")
    dataset = open_ct(source, pixels=False)
    if isinstance(template, CTSlice) and "frame" in template.meta:
        _frame_geometry(dataset, template)
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    reference = Dataset()
    reference.ReferencedSOPClassUID = dataset.get("SOPClassUID", _CT_IMAGE)
    reference.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    if "frame" in (template.meta if isinstance(template, CTSlice) else {}):
        reference.ReferencedFrameNumber = template.meta["frame"] + 1  # type: ignore[union-attr]
    if reference.ReferencedSOPInstanceUID:
        dataset.SourceImageSequence = Sequence([reference])
    return dataset


def _kept(template: Any) -> Any:
    """A new data set, free of the file's encoding, without what no longer holds."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import Dataset

    template.remove_private_tags()
    gone = {tag_for_keyword(keyword) for keyword in _GONE}
    fresh = Dataset()
    for element in template:
        if element.tag not in gone and not 0x5000 <= element.tag.group <= 0x60FF:
            fresh.add(element)
    return fresh


def _frame_geometry(dataset: Any, template: CTSlice) -> None:
    """Put what an enhanced file says per frame where a single slice says it."""
    if template.spacing is not None:
        dataset.PixelSpacing = [float(f"{v:.8g}") for v in template.spacing]
    if template.position is not None:
        dataset.ImagePositionPatient = [float(f"{v:.8g}") for v in template.position]
    if template.orientation is not None:
        dataset.ImageOrientationPatient = [float(f"{v:.8g}") for v in template.orientation]
    dataset.InstanceNumber = template.meta["frame"] + 1


def _blank(image: CTSlice | NDArray[Any]) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    dataset = Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(dataset, keyword, "")
    for keyword in ("StudyID", "AccessionNumber", "ReferringPhysicianName", "Manufacturer", "KVP"):
        setattr(dataset, keyword, None if keyword == "KVP" else "")
    dataset.StudyInstanceUID = generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    known = image if isinstance(image, CTSlice) else None
    if known is not None and known.spacing is not None:
        dataset.PixelSpacing = [float(f"{v:.8g}") for v in known.spacing]
        dataset.ImagePositionPatient = list(known.position or (0.0, 0.0, 0.0))
        dataset.ImageOrientationPatient = list(known.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    return dataset


def _check_size(dataset: Any, shape: tuple[int, ...]) -> None:
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if rows is not None and (int(rows), int(columns)) != shape:
        raise ImageError(
            f"the image is {shape[0]} x {shape[1]}, its template {rows} x {columns}; make them equal"
        )


def _describe(dataset: Any, description: str, series_uid: str, instance: int | None) -> None:
    from pydicom.uid import generate_uid

    now = datetime.now()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = (
        now.strftime("%Y%m%d"),
        now.strftime("%H%M%S"),
    )
    dataset.SOPClassUID = _CT_IMAGE
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


def _save(dataset: Any, path: Path) -> None:
    import warnings

    temporary = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:16]}-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values of the template that bend the standard
            dataset.save_as(temporary, enforce_file_format=True)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    except Exception as error:
        raise ImageError(f"{path} cannot be written with this template ({error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
