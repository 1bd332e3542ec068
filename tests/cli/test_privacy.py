"""Nothing of the patient leaves: every byte that any command writes is searched, caches included."""

import base64
import gzip
import io
import re
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MARK = "zzqx"  # in every tag, file and folder that must not be found again
TAGS = (
    "PatientID", "PatientAddress", "OtherPatientIDs", "PatientComments", "AccessionNumber", "StudyID",
    "InstitutionName", "InstitutionAddress", "StationName", "StudyDescription", "SeriesDescription",
    "ProtocolName", "DeviceSerialNumber", "AdmissionID", "RequestedProcedureDescription", "ImageComments",
    "PatientName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "RequestingPhysician", "AdditionalPatientHistory",
)  # fmt: skip
ARE_SHORT = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "flow.blocks=1")


def marked(path, seed, z, **tags):
    """A CT slice whose text tags, file name and folders all carry the mark."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :96] - 47.5
    hu = np.where(np.hypot(x, 1.2 * y) < 40, 40.0, -1000.0) + rng.normal(0, 10, (96, 96))
    d = Dataset()
    for k, tag in enumerate(TAGS):
        setattr(d, tag, f"{MARK}{k}")
    inner = Dataset()
    inner.PatientName, inner.StudyDescription = f"{MARK}^inner", f"{MARK}inner"
    d.RequestAttributesSequence = d.ReferencedInstanceSequence = [inner]
    d.add_new(0x00091001, "LO", f"{MARK} private")
    for name, value in tags.items():
        setattr(d, name, value)
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = "1.2.840.10008.5.1.4.1.1.2", generate_uid(), "CT"
    d.StudyInstanceUID, d.SeriesInstanceUID, d.InstanceNumber = "1.2.3", "1.2.3.4", seed + 1
    d.Rows = d.Columns = 96
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
    d.RescaleSlope, d.RescaleIntercept, d.PixelSpacing = "1", "0", [0.7, 0.7]
    d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    d.PixelData = np.rint(hu).astype("<i2").tobytes()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = (
        d.SOPClassUID,
        d.SOPInstanceUID,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    d.save_as(path, enforce_file_format=True)
    return path


def opened(content):
    """The bytes of a file and of everything packed in it: archives, compressed and base64 text."""
    yield content
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "\n".join(archive.namelist()).encode()
            for name in archive.namelist():
                yield from opened(archive.read(name))
    elif content[:2] == b"\x1f\x8b":
        yield from opened(gzip.decompress(content))
    else:
        for text in re.findall(rb"base64,([A-Za-z0-9+/=]{16,})", content):
            yield from opened(base64.b64decode(text))


def traces(*roots):
    """Where the mark stands below these folders, in names or bytes, plain or as UTF-16."""
    wide = MARK.encode("utf-16-le")
    for root in roots:
        for file in root.rglob("*"):
            if MARK in str(file.relative_to(root)).lower():
                yield str(file)
            elif file.is_file():
                for content in opened(file.read_bytes()):
                    if MARK.encode() in content.lower() or wide in content.lower():
                        yield str(file)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CTINV_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / f"{MARK}_name" / f"{MARK}_study"
    for i in range(3):
        marked(place / f"{MARK}_{i}.dcm", i, 2.0 * i)
    (place / f"{MARK}.txt").write_text("left out")
    return place


@pytest.fixture
def tell(run):
    """Runs a command that must succeed."""

    def call(*words):
        found = run(*words)
        assert found.code == 0, found.err

    return call


def test_the_search_finds_what_is_there(tmp_path):
    hidden = gzip.compress(f"x{MARK}".encode())
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a", b"data:base64," + base64.b64encode(hidden))
    assert list(traces(tmp_path)) == [str(tmp_path / "a.npz")]


MODEL = ("--model", "yang", "--layer", "conv3")
DRAW = ("-n", 4, "--refine", 0)
COMMANDS = {  # {all}: the folder, {one}: a slice in it, {out}: where to write
    "analyze": [
        ("analyze", *MODEL, "-i", "{one}", "-o", "{out}/a", "--data", "{all}", *DRAW, *ARE_SHORT),
        ("compare", "{out}/a", "-o", "{out}/c"),
    ],
    "sample": [
        ("fit", *MODEL, "-o", "{out}/f", "--data", "high={all}", *ARE_SHORT),
        ("sample", *MODEL[:2], "-e", "{out}/f", "-i", "{all}", "-o", "{out}/s", *DRAW),
        ("audit", "{out}/s"),
    ],
    "probe": [("probe", *MODEL, "-i", "{one}", "-o", "{out}/p", "--samples", 0)],
    "compare-models": [("compare-models", "yang", "yang", "-i", "{one}")],
    "zoo": [("zoo", "train", "chen", "--data", "{all}", "--steps", 1, "-o", "{out}/z")],
    "inspect": [("data", "inspect", "{all}", "--report", "{out}/report.html")],
    "simulate": [("data", "simulate", "{all}", "-o", "{out}/npy", "--format", "npy")],
    "pairs": [("data", "pairs", "{all}", "--json")],
}


LONG = ("analyze", "sample")  # these fit


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in COMMANDS]
)
def test_no_command_writes_a_trace(tell, tmp_path, folder, cache, name):
    out = tmp_path / "out"
    for words in COMMANDS[name]:
        tell(*(str(w).format(all=folder, one=folder / f"{MARK}_0.dcm", out=out) for w in words))
    assert out.exists() is (name not in ("compare-models", "pairs"))
    assert list(traces(out, cache)) == []
    assert [p for p in cache.rglob("*") if p.stat().st_mode & 0o077] == []


def test_simulated_dicom_without_identity(tell, tmp_path, folder, cache):
    pytest.importorskip("dicomanonymizer")
    tell("data", "simulate", folder, "-o", tmp_path / "out", "--deidentify")
    assert list(traces(tmp_path / "out")) == []
    written = [pydicom.dcmread(file) for file in (tmp_path / "out").iterdir()]
    assert len(written) == 3
    assert {d.PatientIdentityRemoved for d in written} == {"YES"}
    assert len({d.SeriesInstanceUID for d in written}) == len({d.StudyInstanceUID for d in written}) == 1
    assert {d.StudyInstanceUID for d in written} != {"1.2.3"}
    assert sorted(d.ImagePositionPatient[2] for d in written) == [0, 2, 4]


def test_simulated_dicom_says_that_tags_are_copied(run, tmp_path, folder):
    told = run("data", "simulate", folder, "-o", tmp_path / "out")
    assert "--deidentify leaves them out" in told.err
    assert not [file.name for file in (tmp_path / "out").iterdir() if MARK in file.name]


@pytest.mark.parametrize(
    ("removed", "option", "named"),
    [(None, (), False), ("YES", (), True), (None, ("--keep-names",), True), ("YES", ("--anonymous",), False)],
)
def test_names_are_kept_where_identity_was_removed(run, fits, tmp_path, removed, option, named):
    tags = {} if removed is None else {"PatientIdentityRemoved": removed}
    file = marked(tmp_path / "in" / "case7.dcm", 0, 0.0, **tags)
    run("analyze", "-m", "chen", "-l", "conv1", "-i", file.parent, "-o", tmp_path / "out", *option)
    (place,) = (p for p in (tmp_path / "out").iterdir() if p.is_dir())
    assert (place.name == "case7") is named
    assert re.fullmatch(r"case7|slice-[0-9a-f]{8}-1", place.name)


@pytest.mark.slow
def test_nothing_is_cached_where_nothing_is_to_be(tell, tmp_path, folder, cache):
    words = ("--model", "yang", "--layer", "conv3", "-i", folder / f"{MARK}_0.dcm", "--no-cache")
    tell("analyze", *words, "-o", tmp_path / "o", "-n", 4, "--refine", 0, "--data", folder, *ARE_SHORT)
    assert not [p for p in cache.rglob("*") if p.is_file()]
