"""What a derived DICOM file takes from its source: patient, study and geometry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .decode import quiet
from .deidentify import basic_profile
from .dicom import open_ct
from .slices import CTSlice

__all__ = ["CT_IMAGE", "source_tags"]

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
"""The SOP class of a CT slice."""

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
# May be empty, but must be there.
_EXPECTED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "KVP",
    "PositionReferenceIndicator",
    "SliceThickness",
    "AcquisitionNumber",
)
# Body parts of which there is one: laterality must not be given for them.
_UNPAIRED = re.compile(
    "ABDOMEN|ABDOMENPELVIS|BLADDER|BRAIN|CHEST|CHESTABDOMEN|CHESTABDPELVIS|COLON|CSPINE|HEAD|HEADNECK|HEART|"
    "JAW|LIVER|LSPINE|MEDIASTINUM|NECK|NECKCHEST|PANCREAS|PELVIS|PROSTATE|SKULL|SPINE|SSPINE|STOMACH|TSPINE|"
    "UTERUS|WHOLEBODY"
)


def source_tags(
    image: CTSlice | NDArray[Any],
    template: CTSlice | str | Path | None,
    shape: tuple[int, ...],
    *,
    deidentify: bool = False,
) -> Any:
    """Patient, study and geometry of a source image, without what belongs to its own pixels.

    Arguments:
        image: Gives the geometry where there is no template.
        template: See :func:`~ctinv.invariance.data.io.write.write_dicom`.
        shape: Rows and columns that the template must have.
        deidentify: See :func:`~ctinv.invariance.data.io.write.write_dicom`.

    Returns:
        A ``pydicom.Dataset``; ``SourceImageSequence`` names the source where there is one.

    Raises:
        ImageError: The template cannot be read, or has another size.
    """
    dataset = _blank(image) if template is None else _from_template(template)
    _check_size(dataset, shape)
    dataset = _kept(dataset)
    if deidentify:
        kinds = [item.ReferencedSOPClassUID for item in dataset.get("SourceImageSequence", [])]
        with quiet():
            basic_profile(dataset)
        for item, kind in zip(dataset.get("SourceImageSequence", []), kinds, strict=True):
            item.ReferencedSOPClassUID = kind  # says nothing of the patient, and must not be empty
    for keyword in _EXPECTED:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    if "PatientPosition" not in dataset and "PatientOrientation" not in dataset:
        dataset.PatientPosition = None
    part = str(dataset.get("BodyPartExamined") or "")
    if not _UNPAIRED.fullmatch(part) and "Laterality" not in dataset:
        dataset.Laterality = None  # may be left out only of parts that the body has once
    with quiet():
        _straighten(dataset)
    return dataset


def _straighten(dataset: Any) -> None:
    """Mend, at every depth, what a source left against the standard and what is copied from it."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if "CodeValue" in dataset and not dataset.get("CodeMeaning"):
        dataset.CodeMeaning = str(dataset.CodeValue)
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                _straighten(item)
        elif dictionary_has_tag(element.tag) and element.VR not in dictionary_VR(element.tag):
            dataset.add_new(element.tag, dictionary_VR(element.tag), element.value)


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
    reference.ReferencedSOPClassUID = dataset.get("SOPClassUID", CT_IMAGE)
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
