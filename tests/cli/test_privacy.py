"""Nothing of the patient leaves: every byte that any command writes is searched, caches included."""

import base64
import contextlib
import gzip
import io
import re
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
from ctinv.invariance.networks.fit_record import FitRecord
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MARK = "zzqxjvkw"  # in every tag, file and folder that must not be found again; no chance spells it
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
    """The bytes of a file and of everything packed in it: archives, zlib streams, base64 text."""
    yield content
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield "\n".join(archive.namelist()).encode()
            for name in archive.namelist():
                yield from opened(archive.read(name))
    elif content[:2] == b"\x1f\x8b":
        yield from opened(gzip.decompress(content))
    else:
        for text in re.findall(rb"base64,([A-Za-z0-9+/=]{16,})|([A-Za-z0-9+/]{64,}={0,2})", content):
            packed = text[0] or text[1]
            yield from opened(base64.b64decode(packed[: len(packed) // 4 * 4]))
        yield from inflated(content)


def inflated(content):
    """Whatever in it zlib can read, such as the text chunks of a PNG or a deflated DICOM file."""
    for start in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(content[start.start() :], 1 << 22)


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
    (tmp_path / "b.png").write_bytes(b"\x89PNG zTXt" + zlib.compress(f"x{MARK}".encode()) + b"IEND")
    (tmp_path / "c.js").write_bytes(b"x = '" + base64.b64encode(f"{MARK}{'y' * 80}".encode()) + b"'")
    (tmp_path / "d.json").write_bytes(f'"{MARK[:3]}"'.encode())
    assert sorted(set(traces(tmp_path))) == [str(tmp_path / name) for name in ("a.npz", "b.png", "c.js")]


MODEL = ("--model", "yang", "--layer", "conv3")
SMALL = ("--model", "chen", "--layer", "conv5")
DRAW = ("-n", 4, "--refine", 0)
FIT = ("--data", "{all}", *ARE_SHORT)  # the same for all, so that one fit serves them
ONE = ("-i", "{one}", "-o")
COMMANDS = {  # {all}: the folder, {one}: a slice in it, {out}: where to write
    "fitted": [
        ("fit", *MODEL, "-o", "{out}/f", *FIT),
        ("analyze", *MODEL, *ONE, "{out}/a", *FIT, *DRAW),
        ("analyze", *MODEL, *ONE, "{out}/d", *FIT, *DRAW, "--format", "dicom", "--deidentify"),
        ("analyze", *MODEL, "-i", "{all}", "-o", "{out}/r", *FIT, *DRAW, "--shard", "1/2"),
        ("gather", "{out}/r"),
        ("compare", "{out}/a", "{out}/r", "-o", "{out}/c"),
        ("sample", *MODEL[:2], "-e", "{out}/f", "-i", "{all}", "-o", "{out}/s", *DRAW),
        ("audit", "{out}/s"),
        ("swap", *MODEL, *ONE, "{out}/w", "--other", "{other}", *FIT),
        ("probe", *MODEL, *ONE, "{out}/p", *FIT, "--samples", 2, "--realisations", 16),
        ("cache", "info"),
        ("cache", "prune", "--size", "1KB"),
    ],
    "hide": [("hide", *SMALL, *ONE, "{out}/h", "--realisations", 0)],
    "spectrum": [("spectrum", *SMALL, *ONE, "{out}/s", "--count", 1, "--steps", 4)],
    "attack": [("attack", *SMALL, *ONE, "{out}/k")],
    "probe": [("probe", *MODEL, *ONE, "{out}/p", "--samples", 0, "--realisations", 16)],
    "protocol": [
        ("probe", *SMALL, *ONE, "{out}/q", "--protocol", "low-contrast", "--doses", "1", "--observers", "lg",
         "--realisations", 16),
        ("probe", *SMALL, *ONE, "{out}/b", "--protocol", "bench", "--doses", "1", "--realisations", 16),
    ],
    "compare-models": [("compare-models", "yang", "yang", "-i", "{one}")],
    "layers": [("layers", "-m", "yang", "--json")],
    "zoo": [
        ("zoo", "train", "chen", "--data", "{all}", "--steps", 1, "-o", "{out}/z"),
        ("zoo", "export", "chen", "{out}/chen.onnx"),
    ],
    "inspect": [("data", "inspect", "{all}", "--report", "{out}/report.html")],
    "simulate": [("data", "simulate", "{all}", "-o", "{out}/npy", "--format", "npy")],
    "pairs": [("data", "pairs", "{all}", "--json")],
    "bench": [("bench", "sampling", "--preset", "tiny", "-n", 2, "--loop", 1, "--rounds", 1, "--json")],
}  # fmt: skip


LONG = ("fitted", "bench")
SILENT = ("compare-models", "pairs", "layers", "bench")  # these write nothing


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in COMMANDS]
)
def test_no_command_writes_a_trace(tell, tmp_path, folder, cache, name):
    out = tmp_path / f"{MARK}_results" / "out"  # where results are written to may tell the patient too
    out.parent.mkdir()
    places = {"all": folder, "one": folder / f"{MARK}_0.dcm", "other": folder / f"{MARK}_1.dcm", "out": out}
    for words in COMMANDS[name]:
        tell(*(str(w).format(**places) for w in words))
        assert list(traces(out, cache)) == [], words
    assert out.exists() is (name not in SILENT)
    assert [p for p in cache.rglob("*") if p.stat().st_mode & 0o077] == []


def test_all_commands_are_searched(run):
    """A new command is to be added above."""
    listed = run("--help").out.partition("Commands:")[2]
    names = set(re.findall(r"^  (\S+)", listed, re.MULTILINE))
    assert names == {words[0] for commands in COMMANDS.values() for words in commands}


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError])
def test_what_is_told_of_a_failed_case_has_no_trace(run, tmp_path, folder, cache, monkeypatch, error):
    from ctinv import invariance

    class Fails:
        def __init__(self, denoiser, layer):
            self.denoiser, self.layer, self.info = denoiser, layer, FitRecord()

        def explain(self, *_, **__):
            raise error(f"cannot do {folder / MARK}_0.dcm")

    made = {"raising": False}
    monkeypatch.setattr(invariance, "fit", lambda d, names, **_: [Fails(d, n) for n in names], **made)
    out = tmp_path / f"{MARK}_results" / "out"
    result = run("analyze", *MODEL, "-i", folder, "-o", out)
    assert result.code == 3, result.err
    assert list(out.rglob("error.json"))
    assert list(traces(out, cache)) == []


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
