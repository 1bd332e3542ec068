"""Tags of DICOM files as text and numbers, and what they rule out."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data.io.tags import (
    derived,
    floats,
    line,
    phase_words,
    refuse_by_tags,
    says_deidentified,
    text,
    values,
)
from pydicom.dataset import Dataset

FILE = Path("a.dcm")


def tagged(**tags):
    """A data set; files in use hold values that pydicom would warn of."""
    ds = Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in ({"PhotometricInterpretation": "MONOCHROME2"} | tags).items():
            setattr(ds, name, value)
    ds.add_new(0x7FE00010, "OW", b"\0\0")
    return ds


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(None, []), ("", []), ("a", ["a"]), (b"b", [b"b"]), (3, [3]), (2.5, [2.5]), ([1, 2], [1, 2]), ((), [])],
)
def test_values_of_an_element(given, wanted):
    assert values(given) == wanted


@pytest.mark.parametrize(
    ("given", "count", "wanted"),
    [
        ("1.5", 1, (1.5,)),
        (["1", 2], 2, (1.0, 2.0)),
        ([1, 2], 3, None),
        (None, 1, None),
        ("x", 1, None),
        ([1, np.nan], 2, None),
        (np.inf, 1, None),
    ],
)
def test_numbers_of_an_element(given, count, wanted):
    assert floats(given, count) == wanted


def test_text_joins_values_and_forgives_what_cannot_be_read():
    assert text(tagged(ImageType=["ORIGINAL", " AXIAL "]), "ImageType") == "ORIGINAL\\AXIAL"
    assert text(tagged(PatientID="P1\0"), "PatientID") == "P1"
    assert text(tagged(), "PatientID") == ""

    class Broken:
        def get(self, keyword):
            raise ValueError(keyword)

    assert text(Broken(), "PatientID") == ""


def test_errors_of_others_come_in_one_line():
    assert line(ValueError("one\n  two")) == "one two"
    assert line(ValueError("")) == "ValueError"
    assert line(ValueError("x" * 160)) == "x" * 160
    assert line(ValueError("x" * 161)) == "x" * 157 + "..."


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL"], False),
        (["DERIVED", "SECONDARY"], True),
        (["derived", "secondary", "other"], True),
        (["DERIVED", "PRIMARY", "AXIAL"], False),
        (["ORIGINAL", "SECONDARY"], False),
        (["ORIGINAL", "PRIMARY", "MPR"], True),
        (["ORIGINAL", "PRIMARY", "min_ip"], True),
    ],
)
def test_what_was_computed_from_other_images(kinds, wanted):
    assert derived(tagged(ImageType=kinds)) is wanted


def test_what_is_said_of_identity_and_phase():
    assert says_deidentified(tagged(PatientIdentityRemoved="yes"))
    assert not says_deidentified(tagged(PatientIdentityRemoved="NO"))
    assert not says_deidentified(tagged())
    ds = tagged(KVP="120", AcquisitionNumber="4", SliceThickness="")
    assert list(phase_words(ds).items()) == [("AcquisitionNumber", "4"), ("KVP", "120")]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"SamplesPerPixel": 1},
        {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11},
        {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        {"BitsAllocated": 16, "BitsStored": 9, "HighBit": 8, "ConversionType": "WSD"},
        {"Units": "HU"},
        {"SeriesDescription": "Thorax with iodine contrast"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
    ],
)
def test_slices_are_let_pass(tags):
    refuse_by_tags(FILE, tagged(**tags))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "scout view"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "CT_SCOUT"]}, "scout view"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "holds a RGB picture"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "holds a PALETTE COLOR picture"),
        ({"SeriesDescription": "sinogram 3"}, "holds projections"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "SINOGRAM"]}, "holds projections"),
        ({"SeriesDescription": "Iodine Map"}, r"something else than HU \(Iodine Map\)"),
        ({"ImageType": ["DERIVED", "PRIMARY", "IODINE"]}, r"than HU \(IODINE\)"),
        ({"Units": "mg/ml"}, "values in MG/ML, not HU"),
        ({"BitsAllocated": 16, "BitsStored": 17, "HighBit": 16}, "contradicts itself"),
        ({"BitsAllocated": 16, "BitsStored": 0}, "contradicts itself"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15}, "BitsStored 12, HighBit 15"),
        ({"BitsAllocated": 8, "ConversionType": "WSD"}, "8-bit capture"),
        ({"BitsAllocated": 8, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "8-bit capture"),
    ],
)
def test_tags_that_rule_a_slice_out(tags, words):
    with pytest.raises(ImageError, match=words):
        refuse_by_tags(FILE, tagged(**tags))


def test_a_file_without_pixels_is_none():
    ds = tagged()
    del ds.PixelData
    with pytest.raises(ImageError, match="no pixel data"):
        refuse_by_tags(FILE, ds)


@pytest.mark.parametrize(("unit", "refused"), [("HU", False), ("[hnsf'U]", False), ("mg/cm3", True)])
def test_units_of_a_real_world_mapping(unit, refused):
    code, mapping = Dataset(), Dataset()
    code.CodeValue = unit
    mapping.MeasurementUnitsCodeSequence = [code]
    ds = tagged(RealWorldValueMappingSequence=[mapping])
    if refused:
        with pytest.raises(ImageError, match="values in mg/cm3"):
            refuse_by_tags(FILE, ds)
    else:
        refuse_by_tags(FILE, ds)
