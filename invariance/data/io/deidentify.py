"""Removing what tells the patient from DICOM tags."""

from __future__ import annotations

from typing import Any

from ctinv.adapters.errors import ImageError

__all__ = ["basic_profile"]


def basic_profile(dataset: Any) -> None:
    """Apply the Basic Application Level Confidentiality Profile to a data set, at every depth.

    The rules are those of DICOM PS3.15, table E.1-1, as the package dicom-anonymizer holds them. UIDs
    become new ones, alike for all files of one run. Pixels are not looked at: what is burned into an
    image stays.

    Arguments:
        dataset: A ``pydicom.Dataset``, changed in place.

    Raises:
        ImageError: The package is not installed.
    """
    try:
        from dicomanonymizer import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            anonymize_dataset,
        )
    except ImportError as error:
        raise ImageError(
            "removing identity needs dicom-anonymizer; install it: pip install 'ctinv[deidentify]'"
        ) from error
    from pydicom.dataset import Dataset

    anonymize_dataset(dataset)
    for element in list(dataset):
        if str(element.value).startswith(_NO_DATE.get(element.VR, " ")):
            element.value = ""  # the package's stand-in is no valid date
        if element.VR == "SQ":
            for item in element.value:
                basic_profile(item)
                for name in _METHOD:
                    if name in item:
                        delattr(item, name)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "DICOM PS3.15 basic profile"
    dataset.DeidentificationMethodCodeSequence = [code]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


_NO_DATE = {"DA": "00010101", "DT": "00010101"}
_METHOD = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
