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
