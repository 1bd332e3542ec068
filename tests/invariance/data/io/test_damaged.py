"""Damaged and contradictory files: read right, or refused in one line; nothing else ever happens."""

from __future__ import annotations

import random
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.cli import main
from ctinv.invariance.data import inspect, read
from pydicom.data import get_testdata_file

KINDS = ("dcm", "tags", "nii", "nii.gz", "nrrd", "tif", "npy", "npz", "mha", "mhd")
SHORT, LONG = 12, 1000
SENSIBLE = 1e6  # HU; nothing beyond may be called HU


def originals(folder):
    """One good file of each kind, all of the same real slice."""
    source = get_testdata_file("CT_small.dcm", download=False)
    (one,) = read(source)
    stack = np.stack([one.hu, one.hu[::-1]]).astype("<i2")
    (folder / "a.dcm").write_bytes(Path(source).read_bytes())
    np.save(folder / "a.npy", stack)
    np.savez_compressed(folder / "a.npz", stack)
    head = "NDims = 3\nDimSize = 128 128 2\nElementSpacing = 1 1 2\nElementType = MET_SHORT\n"
    head += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nCompressedData = {}\nElementDataFile = {}\n"
    (folder / "a.mha").write_bytes(head.format("True", "LOCAL").encode() + zlib.compress(stack.tobytes()))
    (folder / "a.mhd").write_text(head.format("False", "a.raw"))
    (folder / "a.raw").write_bytes(stack.tobytes())
    nibabel = pytest.importorskip("nibabel")
    for suffix in ("nii", "nii.gz"):
        nibabel.save(nibabel.Nifti1Image(stack, np.diag([1.0, 1.0, 2.0, 1.0])), folder / f"a.{suffix}")
    pytest.importorskip("nrrd").write(
        str(folder / "a.nrrd"),
        stack,
        {"space": "LPS", "space directions": np.eye(3), "space origin": [0, 0, 0]},
    )
    pytest.importorskip("tifffile").imwrite(folder / "a.tif", stack)
    return folder


def damaged(content, rng):
    """Bytes changed, cut, doubled, put in or moved, mostly near the start, where headers are."""
    blob = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        size = len(blob) or 1
        at = rng.randrange(min(size, 4000)) if rng.random() < 0.8 else rng.randrange(size)
        length = rng.choice((1, 1, 2, 4, 16, 200))
        kind = rng.randrange(6)
        if kind == 0:
            blob[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            del blob[at:]
        elif kind == 2:
            del blob[at : at + length]
        elif kind == 3:
            blob[at:at] = rng.randbytes(length)
        elif kind == 4:
            blob[at:at] = blob[max(0, at - length) : at]
        else:
            blob[at : at + length] = bytes([rng.choice((0, 0xFF, 0x7F, 0x80))]) * length
    return bytes(blob)


ODD = {
    "RescaleSlope": ("0", "-1", "1e300", "2", "nan", "1\\2", "", "x"),
    "RescaleIntercept": ("0", "-1024", "1e300", "x", ""),
    "RescaleType": ("HU", "US", "Z_EFF", ""),
    "BitsStored": (0, 1, 8, 12, 16, 17, 32),
    "BitsAllocated": (0, 1, 8, 12, 16, 32, 64),
    "HighBit": (0, 11, 15, 31),
    "PixelRepresentation": (0, 1, 2, 7),
    "SamplesPerPixel": (0, 1, 2, 3, 4),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", "", "?"),
    "Rows": (0, 1, 64, 127, 256, 65535),
    "Columns": (0, 1, 64, 129, 256, 65535),
    "NumberOfFrames": ("0", "1", "2", "-1", "99999999", "x"),
    "PixelPaddingValue": (0, 2000, 63536, 65535),
    "ImageType": ("ORIGINAL", "DERIVED\\SECONDARY", "ORIGINAL\\PRIMARY\\LOCALIZER", ""),
    "Modality": ("CT", "MR", "", "XX"),
    "PixelSpacing": ("0\\0", "-1\\1", "nan\\1", "1", ""),
    "ImagePositionPatient": ("1\\2", "nan\\0\\0", "x", ""),
    "ImageOrientationPatient": ("0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "1", ""),
    "PlanarConfiguration": (0, 1, 9),
    "InstanceNumber": ("x", "-1", "99999999999"),
    "SeriesInstanceUID": ("", "not a uid", "1.2"),
}


def contradictory(file, rng):
    """A real file with some tags set to what may not be, or taken out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(file)
        for name in rng.sample(sorted(ODD), rng.choice((1, 1, 2, 3))):
            value = rng.choice(ODD[name])
            element = pydicom.dataelem.DataElement(name, pydicom.datadict.dictionary_VR(name), "", 0)
            if rng.random() < 0.15:
                if name in ds:
                    del ds[name]
                continue
            raw = value.encode() if isinstance(value, str) else int(value).to_bytes(4, "little")[:2]
            ds[element.tag] = pydicom.dataelem.RawDataElement(
                element.tag, element.VR, len(raw), raw + b" " * (len(raw) % 2), 0, False, True
            )
        try:
            ds.save_as(file.with_name("b.dcm"))
        except (ValueError, AttributeError, TypeError):  # no writer takes these tags together
            return contradictory(file, rng)
    return file.with_name("b.dcm")


def independent(file):
    """HU by the bytes and the tags alone; None where that is not plain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(file, force=True)
        kind = {(16, 0): "<u2", (16, 1): "<i2", (8, 0): "u1", (8, 1): "i1"}.get(
            (ds.BitsAllocated, ds.PixelRepresentation)
        )
        if kind is None or ds.BitsStored != ds.BitsAllocated or "NumberOfFrames" in ds:
            return None
        count = ds.Rows * ds.Columns
        stored = np.frombuffer(ds.PixelData, kind)[:count].reshape(ds.Rows, ds.Columns)
        return stored.astype(float) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)


def outcome(file):
    """``read`` or ``refused``; fails on anything else."""
    try:
        found = inspect(file)
        slices = read(file)
    except ImageError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert len(refusal) < 1000
        return "refused", None
    assert found["slices"] == len(slices) > 0
    for one in slices:
        assert one.hu.dtype == np.float32
        assert np.isfinite(one.hu).all()
        assert np.abs(one.hu).max() <= SENSIBLE
        assert one.spacing is None or min(one.spacing) > 0
    return "read", slices


@pytest.mark.parametrize("count", [SHORT, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_read_right_or_refused_in_one_line(tmp_path, kind, count, capfd):
    folder = originals(tmp_path)
    rng = random.Random(f"{kind}")
    good = folder / ("a.dcm" if kind == "tags" else f"a.{kind}")
    content = good.read_bytes()
    outcomes = []
    for _ in range(count):
        file = folder / f"b.{kind}"
        if kind == "tags":
            file = contradictory(good, rng)
        else:
            file.write_bytes(damaged(content, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing may be told but by the refusal
            result, slices = outcome(file)
        outcomes.append(result)
        if kind == "tags" and result == "read" and (expected := independent(file)) is not None:
            (one,) = slices
            np.testing.assert_allclose(one.hu[one.valid], expected[one.valid], rtol=1e-6)
    assert set(outcomes) <= {"read", "refused"}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_ends_with_0_or_2(tmp_path, kind, capfd):
    folder = originals(tmp_path)
    rng = random.Random(kind)
    good = folder / ("a.dcm" if kind == "tags" else f"a.{kind}")
    for _ in range(3):
        file = folder / f"b.{kind}"
        if kind == "tags":
            file = contradictory(good, rng)
        else:
            file.write_bytes(damaged(good.read_bytes(), rng))
        code = main(["data", "inspect", str(file), "--quiet"])
        err = capfd.readouterr().err
        assert (code, len(err.splitlines())) in ((0, 0), (2, 1)), err
