"""Maps in HU to DICOM Parametric Maps: float pixels, bit for bit, over the slice they were made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError
from numpy.typing import NDArray

from .decode import quiet
from .slices import CTSlice
from .template import CT_IMAGE, source_tags
from .write import encoded, new_series_uid

__all__ = ["Algorithm", "check_parametric", "parametric_map"]

_MOST = 1e6  # HU; the range that is announced for a map's values


@dataclass(frozen=True)
class Algorithm:
    """What computed a map.

    Arguments:
        name: For example ``ctinv: what conv7 of yang cannot see``.
        version: Of the software.
        device: What tells this model from others, such as the start of its file's hash.
    """

    name: str
    version: str
    device: str = ""


def check_parametric() -> None:
    """Make sure that Parametric Maps can be written here.

    Raises:
        ImageError: The package highdicom is not installed.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ImageError("DICOM output needs highdicom; install it: pip install 'ctinv[dicom]'") from error


def parametric_map(
    values: NDArray[Any],
    template: CTSlice,
    label: str,
    description: str,
    algorithm: Algorithm,
    *,
    series_uid: str | None = None,
    instance: int = 1,
    derivation: str = "",
    deidentify: bool = False,
) -> bytes:
    """One map as a Parametric Map: float32 pixels in HU, at the place of its slice.

    Patient, study, frame of reference and geometry are those of the slice, which is named as the source;
    the algorithm stands in the quantity's definition and among the contributing equipment.

    Arguments:
        values: (H, W), finite, HU.
        template: The slice it was computed from. Where that came from a DICOM file its tags are taken,
            else the slice's own geometry.
        label: What the map holds, in capitals and underscores, 16 characters.
        description: What it shows, in words; 64 characters are kept.
        algorithm: What computed it.
        series_uid: Series to belong to; a new one where None.
        instance: Number in the series.
        derivation: How it was computed and what it says, in words; 1024 characters are kept.
        deidentify: See :func:`~ctinv.invariance.data.io.write.write_dicom`.

    Returns:
        The file, as bytes.

    Raises:
        ImageError: highdicom is not installed, the values are not finite, or the slice has another size
            or tells no pixel spacing.
    """
    check_parametric()
    pixels = np.asarray(values, dtype=np.float32)
    if pixels.ndim != 2 or not np.isfinite(pixels).all():
        raise ImageError(f"a map must be finite and of shape (H, W), not {pixels.shape}; compute it anew")
    if template.spacing is None:
        raise ImageError(
            f"{template.name} tells no pixel spacing, which DICOM output needs; give a DICOM slice"
        )
    from_file = template if "sop_uid" in template.meta else None
    source = source_tags(template, from_file, pixels.shape, deidentify=deidentify)
    frame = _as_image(source, template)
    with quiet():
        made = _map(frame, pixels, label, description, algorithm, series_uid or new_series_uid(), instance)
    for keyword in ("BodyPartExamined", "Laterality", "PatientPosition"):
        if keyword in source:
            made.add(source[keyword])
    _name_source(made, source)
    _say(made, derivation)
    return encoded(made, "the DICOM map")


def _as_image(source: Any, template: CTSlice) -> Any:
    """The source as the single image that highdicom expects, whatever kind of file it came from."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    image = Dataset()
    for element in source:
        image.add(element)
    named = source.get("SourceImageSequence")
    image.SOPClassUID = CT_IMAGE
    image.SOPInstanceUID = named[0].ReferencedSOPInstanceUID if named else generate_uid()
    image.Modality = "CT"
    image.Rows, image.Columns = template.shape
    if "SeriesInstanceUID" not in image:
        image.SeriesInstanceUID = generate_uid()
    if "FrameOfReferenceUID" not in image:
        image.FrameOfReferenceUID = generate_uid()
    return image


def _map(
    image: Any,
    pixels: NDArray[np.float32],
    label: str,
    description: str,
    algorithm: Algorithm,
    series_uid: str,
    instance: int,
) -> Any:
    import highdicom as hd
    from pydicom.uid import generate_uid

    high = float(max(pixels.max(), 1.0))
    number = image.get("SeriesNumber")
    equipment = hd.ContributingEquipment(
        manufacturer="ctinv",
        purpose_of_reference=hd.sr.CodedConcept("109102", "DCM", "Processing Equipment"),
        manufacturer_model_name="ctinv",
        software_versions=algorithm.version,
        contribution_description=algorithm.name[:1024],
    )
    return hd.pm.ParametricMap(
        source_images=[image],
        pixel_array=pixels,
        series_instance_uid=series_uid,
        series_number=9000 + (int(number) if number not in (None, "") else 0) % 1000,
        sop_instance_uid=generate_uid(),
        instance_number=instance,
        manufacturer="ctinv",
        manufacturer_model_name="ctinv",
        software_versions=algorithm.version,
        device_serial_number=algorithm.device or "none",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(label, description, algorithm)],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=high / 2, window_width=high)],
        content_label=label[:16],
        content_description=description[:64],
        series_description=description[:64],
        contributing_equipment=[equipment],
    )


def _mapping(label: str, description: str, algorithm: Algorithm) -> Any:
    import highdicom as hd

    mapping = hd.pm.RealWorldValueMapping(
        lut_label=label[:16],
        lut_explanation=description[:64],
        unit=hd.sr.CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
        value_range=(-_MOST, _MOST),
        slope=1.0,
        intercept=0.0,
        quantity_definition=hd.sr.CodedConcept("112031", "DCM", "Attenuation Coefficient"),
    )
    for code, meaning, value in (
        ("111001", "Algorithm Name", algorithm.name),
        ("111003", "Algorithm Version", algorithm.version),
    ):
        item = hd.sr.TextContentItem(name=hd.sr.CodedConcept(code, "DCM", meaning), value=value)
        mapping.QuantityDefinitionSequence.append(item)
    return mapping


def _name_source(made: Any, source: Any) -> None:
    """Refer to the source as the kind of image it is, and to its frame."""
    named = source.get("SourceImageSequence")
    for group in made.PerFrameFunctionalGroupsSequence:
        if not named:
            if "DerivationImageSequence" in group:
                del group.DerivationImageSequence
            continue
        for derivation in group.get("DerivationImageSequence", []):
            for reference in derivation.SourceImageSequence:
                reference.ReferencedSOPClassUID = named[0].ReferencedSOPClassUID
                if "ReferencedFrameNumber" in named[0]:
                    reference.ReferencedFrameNumber = named[0].ReferencedFrameNumber
    if not named:
        for keyword in ("ReferencedSeriesSequence", "SourceImageSequence"):
            if keyword in made:
                del made[keyword]
        return
    for reference in made.get("SourceImageSequence", []):
        reference.ReferencedSOPClassUID = named[0].ReferencedSOPClassUID
    for series in made.get("ReferencedSeriesSequence", []):
        for reference in series.get("ReferencedInstanceSequence", []):
            reference.ReferencedSOPClassUID = named[0].ReferencedSOPClassUID


def _say(made: Any, derivation: str) -> None:
    """How the values were derived, which the library does not set."""
    for group in made.PerFrameFunctionalGroupsSequence:
        for item in group.get("DerivationImageSequence", []):
            item.DerivationDescription = derivation[:1024] or None
