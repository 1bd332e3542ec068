"""``ctinv analyze``: what it writes, prints and refuses."""

import json

import numpy as np
import pytest

FILES = {"arrays.npz", "figure.png", "report.html", "result.json"}
TOGETHER = {"report.html", "runs.csv"}


def names(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_one_layer_writes_four_files(run, fits, tmp_path):
    result = run("analyze", "-m", "chen", "-l", "conv3", "-o", tmp_path / "out", "--samples", 7, "--seed", 3)
    assert result.code == 0
    assert names(tmp_path / "out") == FILES
    stored = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert (stored["layer"], stored["samples"], stored["seed"]) == ("conv3", 7, 3)
    assert stored["intensity_found"] == "the model's own metadata"
    assert "Read with care." in result.out
    assert "0.250" in result.out


def test_several_layers_have_folders_and_a_report(run, fits, tmp_path):
    layers = ["conv5", "conv1", "relu2"]
    options = [word for name in layers for word in ("-l", name)]
    result = run("analyze", "-m", "chen", *options, "-o", tmp_path)
    assert result.code == 0
    assert names(tmp_path) == {f"{layer}/{file}" for layer in layers for file in FILES} | TOGETHER
    assert [layer for layer, _ in fits] == layers
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(layer in text for layer in layers)


def test_a_layer_named_twice_is_analysed_once(run, fits, tmp_path):
    assert run("analyze", "-m", "chen", "-l", "conv1", "-l", "conv1", "-o", tmp_path).code == 0
    assert names(tmp_path) == FILES


def test_a_folder_gives_one_folder_per_slice(run, fits, tmp_path, slices):
    result = run(
        "analyze", "-m", "chen", "-l", "conv1", "-i", slices, "-o", tmp_path / "out", "--json", "--keep-names"
    )
    assert result.code == 0
    assert names(tmp_path / "out") == {f"{s}/{file}" for s in "ab" for file in FILES} | TOGETHER
    assert len(fits) == 1
    assert [entry["source"] for entry in result.json] == ["a.npy", "b.npy"]


def test_a_folder_and_several_layers_nest(run, fits, tmp_path, slices):
    result = run(
        "analyze",
        "-m",
        "chen",
        "-l",
        "conv1",
        "-l",
        "conv3",
        "-i",
        slices,
        "-o",
        tmp_path / "out",
        "--keep-names",
    )
    assert result.code == 0
    wanted = {f"{s}/{layer}/{file}" for s in "ab" for layer in ("conv1", "conv3") for file in FILES}
    assert names(tmp_path / "out") == wanted | TOGETHER


def test_json_is_the_result_and_nothing_else(run, fits, tmp_path):
    result = run("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "--json")
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    files = result.json.pop("files")
    assert set(files) == FILES
    assert {k: v for k, v in result.json.items() if k != "files"} == stored
    assert "a library that prints" in result.err


def test_options_reach_the_fit(run, fits, tmp_path):
    run(
        *("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "--preset", "tiny", "--seed", 5),
        *("--set", "fit.steps=3", "--set", "flow.blocks=1", "--no-cache"),
    )
    ((_, options),) = fits
    assert options["preset"] == "tiny"
    assert options["overrides"] == {"fit.steps": "3", "flow.blocks": "1"}
    assert options["seed"] == 5
    assert options["cache"] is False


def test_units_given_are_used_and_named(run, fits, tmp_path):
    run("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path, "--intensity", "unit:-1000:1000")
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert stored["intensity_found"] == "the --intensity option"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.onnx"
    path.write_text("<!doctype html><html><body>Not found</body></html>")
    return path


@pytest.fixture
def holed(tmp_path):
    path = tmp_path / "holed.npy"
    image = np.zeros((64, 64), dtype=np.float32)
    image[3, 4] = np.nan
    np.save(path, image)
    return path


@pytest.fixture
def wrong(tmp_path, page, holed):
    """Arguments that must be refused, and what the message must say."""
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    small = tmp_path / "small.npy"
    np.save(small, np.zeros((4, 4), dtype=np.float32))
    good = {"-m": "chen", "-l": "conv1"}
    return {
        "no such model file": ({**good, "-m": "missing.onnx"}, "missing.onnx"),
        "no such zoo name": ({**good, "-m": "chenn"}, "chen"),
        "a web page as model": ({**good, "-m": page}, "web page"),
        "a text file as model": ({**good, "-m": text}, "notes.txt"),
        "no such layer": ({**good, "-l": "conv11"}, "conv1"),
        "an image that is not there": ({**good, "-i": tmp_path / "none.dcm"}, "none.dcm"),
        "a file that is no image": ({**good, "-i": text}, "notes.txt"),
        "an image with a hole": ({**good, "-i": holed}, "holed.npy"),
        "an image that is too small": ({**good, "-i": small}, "small.npy"),
        "units that make no sense": ({**good, "--intensity": "unit:5"}, "unit:LO:HI"),
        "an unknown preset": ({**good, "--preset": "huge"}, "small"),
        "an unknown field": ({**good, "--set": "fit.speed=3"}, "fit.steps"),
        "a field without value": ({**good, "--set": "fit.steps"}, "key=value"),
        "quantiles in percent": ({**good, "--quantiles": "5,95"}, "0.05,0.95"),
        "one sample": ({**good, "--samples": 1}, "samples"),
        "data that is not there": ({**good, "--data": tmp_path / "no-data"}, "no-data"),
        "a folder under a file": ({**good, "-o": text / "deep"}, "notes.txt"),
    }


CASES = [
    "no such model file",
    "no such zoo name",
    "a web page as model",
    "a text file as model",
    "no such layer",
    "an image that is not there",
    "a file that is no image",
    "an image with a hole",
    "an image that is too small",
    "units that make no sense",
    "an unknown preset",
    "an unknown field",
    "a field without value",
    "quantiles in percent",
    "one sample",
    "data that is not there",
    "a folder under a file",
]


def test_all_cases_are_listed(wrong):
    assert sorted(CASES) == sorted(wrong)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_refused_before_any_fit(run, fits, tmp_path, wrong, case, as_json):
    options, told = wrong[case]
    before = names(tmp_path)
    words = [word for pair in {"-o": tmp_path / "out", **options}.items() for word in pair]
    result = run("analyze", *words, *(["--json"] if as_json else []))
    assert result.code == 2
    assert result.out == ""
    (line,) = [line for line in result.err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("ctinv: ")
    assert told in line
    assert fits == []
    assert names(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_our_own_failure_is_one_line_and_code_1(run, fits, tmp_path, monkeypatch):
    from ctinv import invariance

    def broken(*_, **__):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(invariance, "fit", broken)
    command = ("analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path / "out")
    result = run(*command)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(
        "ctinv: internal error: RuntimeError: first line second line"
    )
    assert "Traceback" not in result.err
    result = run(*command, "--debug")
    assert result.code == 1
    assert "Traceback" in result.err
