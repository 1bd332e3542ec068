"""Small files that announce, or unfold into, more than any scan: refused in one line and in little memory."""

import io
import resource
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
from ctinv.adapters.errors import ImageError
from ctinv.invariance.data import read
from ctinv.invariance.data.io import bombs
from pydicom.data import get_testdata_file

ZEROS = bytes(1 << 20)
MEGABYTES = 160  # of zeros: more than any file may unfold into, and quickly packed


def header(shape, dtype="<f8"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def packed(pack):
    return b"".join([*(pack.compress(ZEROS) for _ in range(MEGABYTES)), pack.flush()])


def npy(path):
    path.write_bytes(header((10**6, 10**6, 10)))


def npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hu.npy", header((4000, 4000, 100)) + bytes(1000))


def npz_of_zeros(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("hu.npy", "w") as file:
        file.write(header((MEGABYTES, 1024, 1024), "|i1"))
        for _ in range(MEGABYTES):
            file.write(ZEROS)


def nifti(path):
    nibabel = pytest.importorskip("nibabel")
    about = nibabel.Nifti1Header()
    about.set_data_shape((1200, 1200, 1200))
    about.set_data_dtype(np.float64)
    blob = about.binaryblock + bytes(4) + bytes(1000)
    path.write_bytes(zlib.compress(blob, wbits=31) if path.suffix == ".gz" else blob)


def nrrd(path, sizes="100000 100000 10"):
    pytest.importorskip("nrrd")
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {sizes}\nencoding: gzip\nendian: little\n\n"
    path.write_bytes(head.encode() + packed(zlib.compressobj(1, wbits=31)))


def nrrd_that_unfolds(path):
    nrrd(path, "64 64 2")


def mha(path, line="DimSize = 60000 60000 2", data="LOCAL"):
    head = f"NDims = 3\n{line}\nElementType = MET_DOUBLE\nCompressedData = True\nElementDataFile = {data}\n"
    path.write_bytes(head.encode() + zlib.compress(ZEROS))


def mhd_of_many_files(path):
    mha(path, "DimSize = 64 64 2", "slice%d.raw 1 1000000000000 1")


def dicom(path, syntax=pydicom.uid.RLELossless):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    dataset.Rows = dataset.Columns = 40_000
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax.is_compressed and not syntax.is_deflated:
        dataset.PixelData = pydicom.encaps.encapsulate([bytes(200)])
        dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)


def dicom_uncompressed(path):
    dicom(path, pydicom.uid.ExplicitVRLittleEndian)


def dicom_deflated(path):
    dicom(path, pydicom.uid.ExplicitVRLittleEndian)
    raw = path.read_bytes()
    end = 144 + int.from_bytes(raw[140:144], "little")
    syntax = raw[:end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    grown = len(syntax) - end
    place = syntax.index(b"1.2.840.10008.1.2.1.99") - 2
    syntax = bytearray(syntax)
    syntax[place : place + 2] = (22).to_bytes(2, "little")
    syntax[140:144] = (end - 144 + grown).to_bytes(4, "little")
    path.write_bytes(bytes(syntax) + packed(zlib.compressobj(1, wbits=-15)))


def tiff(path):
    tifffile = pytest.importorskip("tifffile")
    pages = (np.zeros((1024, 1024), np.uint8) for _ in range(MEGABYTES))
    tifffile.imwrite(path, pages, shape=(MEGABYTES, 1024, 1024), dtype=np.uint8, compression="zlib")


BOMBS = {
    "a.npy": npy,
    "a.npz": npz,
    "zeros.npz": npz_of_zeros,
    "a.nii": nifti,
    "a.nii.gz": nifti,
    "a.nrrd": nrrd,
    "unfolds.nrrd": nrrd_that_unfolds,
    "a.mha": mha,
    "a.mhd": mhd_of_many_files,
    "a.dcm": dicom,
    "plain.dcm": dicom_uncompressed,
    "deflated.dcm": dicom_deflated,
    "a.tif": tiff,
}


@pytest.mark.parametrize("name", BOMBS)
def test_refused_before_it_is_read(tmp_path, name):
    path = tmp_path / name
    BOMBS[name](path)
    assert path.stat().st_size < 4_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError) as refusal:
        read(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert grown < 120_000  # kB


def test_what_does_not_fit_into_the_free_memory_is_refused(tmp_path, monkeypatch):
    class Free:
        available = 10**6

    monkeypatch.setattr(bombs.psutil, "virtual_memory", Free)
    monkeypatch.setattr(bombs, "_HARMLESS", 10**5)
    path = tmp_path / "a.npy"
    np.save(path, np.random.default_rng(0).normal(0, 50, (300, 300)))
    with pytest.raises(ImageError, match=r"GB to read where 0\.0 GB are free; give a part of it"):
        read(path)


def test_air_alone_packs_well_and_is_read(tmp_path):
    """Files that unfold into little are read however well they are packed."""
    stack = np.full((4, 256, 256), -1000, np.int16)
    stack[:, 100:150, 100:150] = 40 + np.arange(4).reshape(4, 1, 1)
    np.savez_compressed(tmp_path / "a.npz", stack)
    assert (tmp_path / "a.npz").stat().st_size * 100 < stack.nbytes
    assert len(read(tmp_path / "a.npz")) == 4


@pytest.mark.parametrize("count", [0, 1000, 3 << 20])
def test_what_unfolds_is_counted(tmp_path, count):
    (tmp_path / "a").write_bytes(b"head" + zlib.compress(bytes(count)))
    assert bombs.inflated_size(tmp_path / "a", 4, 10**9) == count
    assert bombs.inflated_size(tmp_path / "a", 4, 500) >= min(count, 501)


@pytest.mark.parametrize("name", ["../b.raw", "/etc/hostname", "up/../../b.raw"])
def test_data_that_a_header_looks_for_elsewhere_are_refused(tmp_path, name):
    folder = tmp_path / "ct"
    folder.mkdir()
    (tmp_path / "b.raw").write_bytes(bytes(48))
    header = (
        f"NRRD0004\ntype: int16\ndimension: 2\nsizes: 4 6\nencoding: raw\nendian: little\ndata file: {name}\n"
    )
    (folder / "a.nhdr").write_text(header, encoding="ascii")
    with pytest.raises(ImageError, match="outside its folder"):
        read(folder / "a.nhdr")
