"""``ctinv probe``: what it writes, prints and refuses."""

import json

import numpy as np
import pytest

FILES = {"figure.png", "report.html", "result.json"}


@pytest.fixture
def tissue(tmp_path):
    """A slice of noisy tissue in air, and a folder of two."""
    rng = np.random.default_rng(0)
    inside = np.hypot(*(np.indices((96, 96)) - 48)) < 42
    folder = tmp_path / "ct"
    folder.mkdir()
    for name in ("a", "b"):
        x = np.where(inside, 60 + rng.normal(0, 15, inside.shape), -1000)
        np.save(folder / f"{name}.npy", x.astype(np.float32))
    return folder / "a.npy"


def names(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_two_layers_and_a_grid(run, tissue, tmp_path):
    out = tmp_path / "out"
    result = run(
        *("probe", "-m", "chen", "-l", "conv3", "-l", "conv5", "-i", tissue, "-o", out, "--realisations", 16),
        *("--lesion", "size=5mm,contrast=-60HU,at=48:50", "--grid", "sizes=4:6,contrasts=-60", "--seed", 2),
    )
    assert result.code == 0, result.err
    assert names(out) == {f"{n}/{f}" for n in ("conv3", "conv5") for f in FILES} | {"report.html"}
    stored = json.loads((out / "conv5" / "result.json").read_text(encoding="utf-8"))
    assert (stored["layer"], stored["seed"], stored["kind"]) == ("conv5", 2, "probe")
    assert stored["lesion"] == {"size": 5.0, "contrast": -60.0, "at": [48, 50]}
    assert stored["grid"]["sizes"] == [4.0, 6.0]
    assert stored["intensity_found"] == "the model's own metadata"
    assert stored["verdict"][0] in result.out
    assert "0.8 mm is assumed" in result.err


def test_json_is_the_result_and_nothing_else(run, tissue, tmp_path):
    result = run(
        *("probe", "-m", "chen", "-l", "conv5", "-i", tissue, "-o", tmp_path / "out", "--json"),
        *("--realisations", 16, "--level", 1.5),
    )
    stored = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert set(result.json["files"]) == FILES
    assert {k: v for k, v in result.json.items() if k != "files"} == stored
    assert stored["level"] == 1.5


def test_a_protocol_plans_runs_and_goes_on(run, tissue, tmp_path):
    asked = (
        *("probe", "-m", "chen", "-l", "conv3", "-i", tissue, "--protocol", "low-contrast", "--doses", "0.5"),
        *("--realisations", 16, "--observers", "lg", "-o", tmp_path / "out"),
    )
    first = run(*asked)
    assert first.code == 0, first.err
    assert names(tmp_path / "out") - {"cases"} >= {"figure.png", "outcomes.csv", "report.html", "result.json"}
    assert "plan: 1 cases, " in first.err
    stored = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert stored["layers"] == {"chen": ["x", "conv3", "f(x)"]}
    assert stored["verdict"][0] in first.out
    again = run(*asked, "--json")
    assert {k: v for k, v in again.json.items() if k != "files"} == stored
    assert "1 done before" in run(*asked).err


def protocol(tmp_path, *more):
    """A protocol of one denoiser, as short as it can be."""
    words = ("probe", "-m", "chen", "-l", "conv5", "--protocol", "low-contrast", "--observers", "lg")
    return (*words, "--realisations", 16, "-o", tmp_path / "out", *more)


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes longest, and is tested elsewhere."""
    for name in ("protocol.files.protocol_png", "protocol.files.bench_png", "quality.files.bench_png"):
        monkeypatch.setattr(f"ctinv.invariance.probing.{name}", lambda _: b"no picture")


def stored(tmp_path):
    return json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("values", "size", "contrast"),
    [
        (np.pad(np.full((8, 5), -40.0), 4), 6.4, -40.0),
        pytest.param(np.pad(np.ones((6, 10)), 3), 8.0, 15.0, marks=pytest.mark.slow),  # a mask is given 15 HU
    ],
)
def test_a_lesion_from_a_file_is_one_more_task(run, undrawn, tissue, tmp_path, values, size, contrast):
    np.save(tmp_path / "mine.npy", values.astype(np.float32))
    more = ("-i", tissue, "--doses", "1", "--lesion-file", tmp_path / "mine.npy")
    result = run(*protocol(tmp_path, *more))
    assert result.code == 0, result.err
    assert len(stored(tmp_path)["protocol"]["tasks"]) == 13
    found = [o for o in stored(tmp_path)["outcomes"] if o["task"] == "detect-file"]
    assert [o["contrast"] for o in found] == 3 * [contrast]
    assert [o["size"] for o in found] == pytest.approx(3 * [size])
    assert [o["where"] for o in found] == ["x", "conv5", "f(x)"]
    assert found[0]["auc"] > 0.8  # larger and stronger than noise of 15 HU hides


@pytest.fixture
def scanned(tmp_path):
    """Scans of a phantom with a disc of 10 mm and 25 HU, at two doses, and without."""
    rng = np.random.default_rng(0)
    disc = np.hypot(*(np.indices((96, 96)) - 48)) <= 6.25
    for dose, place in ((1.0, "full"), (0.25, "quarter")):
        folder = tmp_path / "phantom" / place
        folder.mkdir(parents=True)
        for name, signal in (("present", 25.0 * disc), ("absent", 0.0 * disc)):
            (folder / name).mkdir()
            for number in range(12):
                image = 40 + signal + rng.normal(0, 10 / np.sqrt(dose), (96, 96))
                np.save(folder / name / f"{number}.npy", (image + 1024).astype(np.float32))
    text = "offset: 1024\nspacing: 0.8\ndoses: {1.0: full, 0.25: quarter}\n"
    (tmp_path / "phantom" / "phantom.yaml").write_text(text)
    return tmp_path / "phantom"


@pytest.mark.parametrize("named", [False, True])
def test_a_scanned_phantom_from_a_folder(run, undrawn, scanned, tmp_path, named):
    if named:
        with (scanned / "phantom.yaml").open("a") as file:
            file.write("inserts:\n  - {at: [48, 48], diameter: 10, contrast: 25}\n")
    result = run(*protocol(tmp_path, "--phantom", scanned))
    assert result.code == 0, result.err
    assert ("1 inserts of phantom, named" if named else "found by a search") in result.err
    assert stored(tmp_path)["scene"] == "scans of phantom"
    seen = [o for o in stored(tmp_path)["outcomes"] if o["where"] == "x"]
    assert [o["dose"] for o in seen] == [1.0, 0.25]
    assert seen[0]["size"] == pytest.approx(10, rel=0.3)
    assert seen[0]["auc"] > 0.95
    assert seen[1]["detectability"] < seen[0]["detectability"]


@pytest.mark.slow
def test_made_up_abdomens_as_background(run, tmp_path):
    words = protocol(tmp_path, "--background", "anatomy", "--doses", "1")
    result = run(*words)
    assert result.code == 0, result.err
    assert "made-up abdomens" in stored(tmp_path)["scene"]
    assert {o["where"] for o in stored(tmp_path)["outcomes"]} == {"x", "conv5", "f(x)"}


def test_the_bench_is_a_protocol_of_its_own(run, undrawn, tmp_path, monkeypatch):
    from ctinv.invariance.probing.quality import bench

    monkeypatch.setattr(bench, "_BODY", 128)
    words = ("probe", "-m", "chen", "--protocol", "bench", "--doses", "1", "--realisations", 16)
    result = run(*words, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert names(tmp_path / "out") >= {"bench.png", "bench.csv", "report.html", "result.json"}
    assert "TTF falls to 50 %, +30 HU, dose 1" in result.out
    kept = stored(tmp_path)
    assert (kept["kind"], kept["bench"][0]["model"], kept["bench"][0]["n"]) == ("bench", "chen", 16)
    again = run(*words, "-o", tmp_path / "out", "--json").json
    assert {k: v for k, v in again.items() if k != "files"} == kept


def test_both_protocols_share_a_page(run, undrawn, tissue, tmp_path, monkeypatch):
    from ctinv.invariance.probing.quality import bench

    monkeypatch.setattr(bench, "_BODY", 128)
    result = run(*protocol(tmp_path, "-i", tissue, "--doses", "1", "--protocol", "bench"))
    assert result.code == 0, result.err
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Where the tasks are lost" in page
    assert "Bench figures of f(x)" in page
    assert stored(tmp_path)["bench"][0]["n"] == 16
    assert names(tmp_path / "out") >= {"bench.png", "bench.csv", "outcomes.csv", "shares.csv"}


REFUSED = {
    "several models": (("-m", "yang"), "--protocol"),
    "doses that are none": (("--protocol", "low-contrast", "--doses", "1,half"), "1,0.5"),
    "a dose above the routine one": (("--protocol", "low-contrast", "--doses", "2"), "fractions"),
    "an unknown observer": (("--protocol", "low-contrast", "--observers", "eye"), "shaped"),
    "a lesion's file that is not there": (
        ("--protocol", "low-contrast", "--lesion-file", "no.npy"),
        "no.npy",
    ),
    "a lesion in air": (("--lesion", "size=6mm,contrast=-15HU,at=1:1"), "outside the body"),
    "a lesion off the slice": (("--lesion", "at=500:1"), "outside the slice"),
    "a lesion smaller than its pixels": (("--lesion", "size=1mm"), "two pixels"),
    "a lesion of no contrast": (("--lesion", "contrast=0"), "HU"),
    "a lesion that cannot be read": (("--lesion", "6mm"), "size=6mm"),
    "a grid that cannot be read": (("--grid", "sizes=2:x,contrasts=-10"), "'x'"),
    "an unknown layer": (("-l", "conv77"), "conv1"),
    "an unknown preset": (("--preset", "huge"), "small"),
    "too few realisations": (("--realisations", 3), "16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(run, tissue, tmp_path, case):
    more, said = REFUSED[case]
    result = run("probe", "-m", "chen", "-l", "conv1", "-i", tissue, "-o", tmp_path / "out", *more)
    assert result.code == 2
    *notes, refusal = result.err.strip().splitlines()
    assert said in refusal
    assert all(note.startswith("note: ") for note in notes)  # on spacing, and on the noise's texture
    assert not (tmp_path / "out").exists()


def test_a_probe_without_a_layer_is_refused(run, tmp_path):
    result = run("probe", "-m", "chen", "-o", tmp_path / "out")
    assert (result.code, "--layer" in result.err) == (2, True)


def test_a_folder_of_slices_is_too_much(run, tissue, tmp_path):
    result = run("probe", "-m", "chen", "-l", "conv1", "-i", tissue.parent, "-o", tmp_path / "out")
    assert (result.code, "2 slices" in result.err) == (2, True)
