"""Small DICOM files written by tests."""

from __future__ import annotations

import warnings

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def dicom(stored, *, syntax=ExplicitVRLittleEndian, meta=True, **tags):
    """A small CT data set whose stored values are ``stored``; tags set to None are left out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = CT
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": "1.2.3",
        "StudyInstanceUID": "1.2",
        "SeriesDescription": "Abdomen",
        "PatientID": "P1",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [0.7, 0.8],
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[-2],
        "Columns": stored.shape[-1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleSlope": "1",
        "RescaleIntercept": "-1024",
    } | tags
    for name, value in values.items():
        if value is not None:
            setattr(ds, name, value)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.add_new(0x7FE00010, "OW", stored.astype(stored.dtype.newbyteorder(order)).tobytes())
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if not meta:
        del ds.file_meta
    return ds


def save(ds, path, syntax=ExplicitVRLittleEndian):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(ds, "file_meta"):
            ds.save_as(path, enforce_file_format=True)
        else:
            implicit = syntax == ImplicitVRLittleEndian
            little = syntax != ExplicitVRBigEndian
            ds.save_as(path, implicit_vr=implicit, little_endian=little)
    return path
