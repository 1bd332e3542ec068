"""What the tags of a DICOM file say, as plain text and numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from ctinv.adapters.errors import ImageError

__all__ = [
    "derived",
    "floats",
    "line",
    "phase_words",
    "refuse_by_tags",
    "says_deidentified",
    "text",
    "values",
]

_REFORMATTED = {"MPR", "MIP", "MINIP", "MIN_IP", "VRT", "3D", "REFORMATTED", "PROJECTION IMAGE"}
_NOT_HU = re.compile(
    r"\biod(ine|ate)?[\s_-]*(map|density|conc\w*|no[\s_-]*water|only|overlay|image|\W*mg)|\bz[\s_-]*eff"
    r"|\beff\w*[\s_-]*z\b|electron[\s_-]*dens|\brho[\s_-]*z|mg\s*/\s*(ml|cc)|material[\s_-]*dens"
    r"|\b(cbf|cbv|mtt|ttp|tmax)\b|perfusion[\s_-]*map|uric[\s_-]*acid|label[\s_-]*map|segmentation",
    re.IGNORECASE,
)
_PROJECTION = re.compile(r"\b(projections?|sinogram|raw[\s_-]*data)\b", re.IGNORECASE)
_HU_CODES = {"", "[hnsf'U]", "HU", "hnsf'U"}
_PHASES = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionTime",
    "ContentTime",
    "ConvolutionKernel",
    "KVP",
    "ImageType",
    "SliceThickness",
)


def values(value: Any) -> list[Any]:
    """The values of an element, none where it is absent or empty."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | bytes | int | float) else list(value)


def text(dataset: Any, keyword: str) -> str:
    """The element's values joined by backslashes; empty where absent."""
    try:
        value = dataset.get(keyword)
        return "\\".join(str(v).strip() for v in values(value)).strip("\0 ")
    except Exception:  # an element whose bytes no reader can interpret says nothing
        return ""


def floats(value: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    try:
        numbers = tuple(float(v) for v in values(value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None


def line(error: Exception) -> str:
    """An error of another library in one short line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 160 else words[:157] + "..."


def derived(dataset: Any) -> bool:
    """Whether an image was computed from other images: a reformat, a projection, another tool's result."""
    kinds = text(dataset, "ImageType").upper().split("\\")
    return kinds[:2] == ["DERIVED", "SECONDARY"] or any(kind in _REFORMATTED for kind in kinds)


def says_deidentified(dataset: Any) -> bool:
    """Whether Patient Identity Removed (0012,0062) says YES."""
    return text(dataset, "PatientIdentityRemoved").upper() == "YES"


def phase_words(dataset: Any) -> dict[str, str]:
    """What may tell slices at one place apart, in the order in which it is asked."""
    return {keyword: words for keyword in _PHASES if (words := text(dataset, keyword))}


def refuse_by_tags(path: Path, dataset: Any) -> None:
    """Refuse what the tags alone show to be no CT slice in HU.

    Raises:
        ImageError: A scout view, colour, a projection, a map of another quantity, an 8-bit capture,
            no pixels, or tags that contradict each other.
    """
    kinds = text(dataset, "ImageType").upper().split("\\")
    if any("LOCALIZER" in kind or "SCOUT" in kind for kind in kinds):
        raise ImageError(f"{path} is a scout view (localizer), not a slice; give an axial CT slice")
    photometric = text(dataset, "PhotometricInterpretation").upper() or "colour"
    if _integer(dataset, "SamplesPerPixel", 1) != 1 or "PALETTE" in photometric:
        raise ImageError(f"{path} holds a {photometric} picture, not HU; give the original CT slice")
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ImageError(f"{path} holds no pixel data; give a CT slice")
    said = " ".join([text(dataset, "SeriesDescription"), *kinds])
    if _PROJECTION.search(text(dataset, "SeriesDescription")) or "SINOGRAM" in kinds:
        raise ImageError(f"{path} holds projections, not a slice; give the reconstructed images")
    if (match := _NOT_HU.search(said)) is not None or "IODINE" in kinds:
        what = match[0] if match is not None else "IODINE"
        raise ImageError(f"{path} is a map of something else than HU ({what.strip()}); give the CT image")
    _refuse_units(path, dataset)
    _refuse_bits(path, dataset)


def _refuse_units(path: Path, dataset: Any) -> None:
    units = text(dataset, "Units").upper()
    if units not in ("", "HU"):
        raise ImageError(f"{path} holds values in {units}, not HU; give the CT image itself")
    for mapping in dataset.get("RealWorldValueMappingSequence") or []:
        for code in mapping.get("MeasurementUnitsCodeSequence") or []:
            if (unit := text(code, "CodeValue")) not in _HU_CODES:
                raise ImageError(f"{path} holds values in {unit}, not HU; give the CT image itself")


def _refuse_bits(path: Path, dataset: Any) -> None:
    allocated = _integer(dataset, "BitsAllocated", 16)
    stored = _integer(dataset, "BitsStored", allocated)
    high = _integer(dataset, "HighBit", stored - 1)
    if not 0 < stored <= allocated or high != stored - 1:
        raise ImageError(
            f"{path} contradicts itself: BitsAllocated {allocated}, BitsStored {stored}, HighBit {high}; "
            "HighBit must be BitsStored - 1; export it anew"
        )
    capture = "ConversionType" in dataset or text(dataset, "SOPClassUID").startswith(_CAPTURE)
    if stored <= 8 and capture:
        raise ImageError(f"{path} is an 8-bit capture of a screen, not HU; give the original CT slice")


_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def _integer(dataset: Any, keyword: str, otherwise: int) -> int:
    number = floats(dataset.get(keyword), 1)
    return otherwise if number is None else int(number[0])
