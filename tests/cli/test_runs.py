"""Many cases in one run: restarts, failures, shards, several models and patterns of layers."""

import csv
import json

import numpy as np
import pytest
from ctinv import invariance

from .conftest import Explainer

TIMES = ("seconds.",)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing takes longest, and is tested elsewhere."""
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.figure_png", lambda _: b"no picture")
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.report_html", lambda *_, **__: "no page")


@pytest.fixture
def scans(tmp_path):
    """Five slices."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in range(5):
        np.save(folder / f"{name}.npy", rng.normal(0, 50, (32, 32)).astype(np.float32))
    return folder


@pytest.fixture
def analyze(run, fits, scans, tmp_path):
    """``ctinv analyze`` on those slices, into a folder of a given name."""

    def call(out, *words, model=("-m", "chen"), layer=("-l", "conv1"), source=scans):
        return run(
            "analyze", *model, *layer, "-i", source, "--keep-names", "-n", 3, "-o", tmp_path / out, *words
        )

    return call


@pytest.fixture
def breaking(monkeypatch):
    """Makes explanations of some slices fail; what was explained is listed."""
    explained, broken = [], {}
    whole = Explainer.explain

    def explain(self, image, **options):
        explained.append((self.denoiser.name, self.layer, image.name))
        if image.name in broken:
            raise broken[image.name]
        return whole(self, image, **options)

    monkeypatch.setattr(Explainer, "explain", explain)
    explain.explained, explain.broken = explained, broken
    return explain


def table(out):
    with (out / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(out):
    """All files of a run but what tells times."""
    found = {}
    for file in sorted(out.rglob("*")):
        if not file.is_file():
            continue
        raw = file.read_bytes()
        if file.name == "result.json":
            raw = {k: v for k, v in json.loads(raw).items() if k != "timings"}
        if file.name == "runs.csv":
            raw = [{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in table(out)]
        found[str(file.relative_to(out))] = raw
    return found


def test_one_row_for_each_case(analyze, tmp_path):
    result = analyze("out", layer=("-l", "conv1", "-l", "conv3"))
    assert result.code == 0, result.err
    rows = table(tmp_path / "out")
    assert [row["folder"] for row in rows] == [
        f"{s}/{layer}" for s in range(5) for layer in ("conv1", "conv3")
    ]
    assert {row["status"] for row in rows} == {"done"}
    assert [row["slice"] for row in rows[::2]] == [f"{s}.npy" for s in range(5)]
    assert {row["leakage.refined"] for row in rows} == {"0.25"}
    assert len({row["case"] for row in rows}) == 10


def test_what_is_finished_is_not_done_again(analyze, breaking, fits, tmp_path):
    analyze("out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "3" / "result.json").unlink()
    breaking.explained.clear()
    fits.clear()
    assert analyze("out").code == 0
    assert [name for _, _, name in breaking.explained] == ["3.npy"]
    assert contents(tmp_path / "out") == before
    fits.clear()
    assert analyze("out").code == 0
    assert fits == []  # nothing to do, nothing to fit
    assert analyze("out", "--restart").code == 0
    assert len(breaking.explained) == 1 + 5


@pytest.mark.parametrize("words", [("--seed", 1), ("--samples", 4), ("--preset", "tiny"), ("--rho", 0.1)])
def test_another_question_is_answered_anew(analyze, breaking, words):
    analyze("out")
    breaking.explained.clear()
    assert analyze("out", *words).code == 0
    assert len(breaking.explained) == 5


def test_pixels_that_changed_are_analysed_anew(analyze, breaking, scans):
    analyze("out")
    breaking.explained.clear()
    np.save(scans / "2.npy", np.load(scans / "2.npy") + np.float32(1))
    assert analyze("out").code == 0
    assert [name for _, _, name in breaking.explained] == ["2.npy"]


def test_a_case_that_fails_costs_one_row(analyze, breaking, scans, tmp_path):
    breaking.broken["2.npy"] = RuntimeError(f"{scans}/2.npy:\nsomething odd")
    result = analyze("out")
    assert result.code == 3
    assert result.err.splitlines()[-1].startswith("ctinv: 1 of 5 failed; runs.csv in ")
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "done"]
    assert rows[2]["error"] == "2.npy: something odd"
    assert {p.name for p in (tmp_path / "out" / "2").iterdir()} == {"error.json"}
    assert "something odd" in (tmp_path / "out" / "report.html").read_text()
    breaking.explained.clear()
    breaking.broken.clear()
    assert analyze("out").code == 0
    assert [name for _, _, name in breaking.explained] == ["2.npy"]
    assert {row["status"] for row in table(tmp_path / "out")} == {"done"}


def test_json_lists_failures_too(analyze, breaking):
    breaking.broken["2.npy"] = RuntimeError("odd")
    result = analyze("out", "--json")
    assert result.code == 3
    assert [entry.get("error") for entry in result.json] == [None, None, "odd", None, None]
    assert set(result.json[2]["files"]) == {"error.json"}


def test_all_may_fail(analyze, breaking, tmp_path):
    breaking.broken.update({f"{n}.npy": RuntimeError("odd") for n in range(5)})
    result = analyze("out")
    assert result.code == 3
    assert "5 of 5 failed" in result.err
    assert len(table(tmp_path / "out")) == 5
    assert not (tmp_path / "out" / "report.html").exists()


def test_the_first_failure_ends_the_run_where_asked(analyze, breaking, tmp_path):
    breaking.broken["2.npy"] = RuntimeError("odd")
    result = analyze("out", "--fail-fast")
    assert result.code == 1
    assert "RuntimeError: odd" in result.err
    assert [row["folder"] for row in table(tmp_path / "out")] == ["0", "1"]


def test_one_case_fails_as_it_always_did(analyze, breaking, scans, tmp_path):
    breaking.broken["2.npy"] = RuntimeError("odd")
    result = analyze("out", source=scans / "2.npy")
    assert result.code == 1
    assert not (tmp_path / "out").exists()


def test_a_layer_that_cannot_be_fitted_costs_its_own_cases(analyze, tmp_path, monkeypatch):
    whole = invariance.fit

    def fit(denoiser, layers, **options):
        if "conv3" in layers:
            raise RuntimeError("diverged")
        return whole(denoiser, layers, **options)

    monkeypatch.setattr(invariance, "fit", fit)
    result = analyze("out", layer=("-l", "conv1", "-l", "conv3", "-l", "conv5"))
    assert result.code == 3
    assert "5 of 15 failed" in result.err
    assert {row["layer"] for row in table(tmp_path / "out") if row["status"] == "failed"} == {"conv3"}
    result = analyze("none", layer=("-l", "conv3"))
    assert result.code == 1
    assert "diverged" in result.err


@pytest.mark.parametrize(
    "count", [2, pytest.param(4, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)]
)
def test_shards_together_are_one_run(analyze, tmp_path, count):
    assert analyze("whole").code == 0
    order = np.random.default_rng(0).permutation(count) + 1
    for number in order:
        assert analyze("parts", "--shard", f"{number}/{count}").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_shard_speaks_of_its_own_cases(analyze, tmp_path):
    result = analyze("out", "--shard", "2/3", "--json")
    assert [entry["source"] for entry in result.json] == ["1.npy", "4.npy"]
    assert [row["folder"] for row in table(tmp_path / "out")] == ["1", "4"]


def test_gather_makes_table_and_page_anew(analyze, breaking, run, tmp_path):
    breaking.broken["2.npy"] = RuntimeError("odd")
    analyze("out")
    out = tmp_path / "out"
    before = contents(out)
    (out / "runs.csv").unlink()
    (out / "report.html").write_text("")
    result = run("gather", out, "--json")
    assert result.code == 0
    assert (result.json["cases"], result.json["failed"]) == (5, 1)
    assert contents(out) == before
    (tmp_path / "empty").mkdir()
    result = run("gather", tmp_path / "empty")
    assert result.code == 2
    assert "holds no result.json" in result.err


def test_models_have_folders_of_their_own(analyze, tmp_path):
    result = analyze("out", model=("-m", "chen", "-m", "yang"), layer=("-l", "conv3"))
    assert result.code == 0, result.err
    rows = table(tmp_path / "out")
    assert [row["folder"] for row in rows] == [f"{m}/{s}" for m in ("chen", "yang") for s in range(5)]
    assert len({row["case"] for row in rows}) == 10
    for row in rows:
        stored = json.loads((tmp_path / "out" / row["folder"] / "result.json").read_text())
        assert (stored["model"], stored["layer"]) == (row["model"], row["layer"])


def test_one_slice_of_two_models(run, fits, tmp_path):
    result = run("analyze", "-m", "chen", "-m", "yang", "-l", "conv1", "-l", "conv3", "-o", tmp_path)
    assert result.code == 0, result.err
    found = {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("result.json")}
    assert found == {f"{m}/{layer}" for m in ("chen", "yang") for layer in ("conv1", "conv3")}


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (("conv*",), ["conv1", "conv3", "conv5"]),
        (("all",), ["conv1", "relu2", "conv3", "relu4", "conv5"]),
        (("relu4", "*[24]"), ["relu4", "relu2"]),
        (("conv5", "conv*"), ["conv5", "conv1", "conv3"]),
    ],
)
def test_layers_are_named_by_patterns(run, fits, tmp_path, words, layers):
    given = [part for word in words for part in ("-l", word)]
    result = run("analyze", "-m", "chen", *given, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert [layer for layer, _ in fits] == layers


def test_a_layer_that_one_model_lacks_is_left_out_there(run, fits, tmp_path):
    result = run("analyze", "-m", "chen", "-m", "yang", "-l", "conv3", "-l", "conv15", "-o", tmp_path)
    assert result.code == 0, result.err
    assert "left out of chen" in result.err
    found = {str(p.parent.relative_to(tmp_path)) for p in tmp_path.rglob("result.json")}
    assert found == {"chen", "yang/conv3", "yang/conv15"}


@pytest.mark.parametrize("words", [("-l", "pool*"), ("-l", "conv3", "-l", "conv99"), ("-l", "conv15")])
def test_layers_that_fit_nothing_are_refused(run, fits, tmp_path, words):
    models = ("-m", "chen") if words[1] == "conv15" else ("-m", "chen", "-m", "yang")
    result = run("analyze", *models, *words, "-o", tmp_path / "out")
    assert result.code == 2
    assert fits == []
    assert not (tmp_path / "out").exists()


def test_a_second_run_into_one_folder_is_refused(analyze, tmp_path):
    from ctinv.invariance.runs.cases import Shard
    from ctinv.invariance.runs.locks import alone_in

    with alone_in(tmp_path / "out", Shard()):
        result = analyze("out")
        assert result.code == 2
        assert "another run is writing" in result.err
        assert analyze("out", "--shard", "1/2").code == 0


def test_without_a_terminal_lines_tell_how_far_it_is(analyze, monkeypatch):
    from ctinv.cli import console

    seconds = iter(range(0, 100000, 20))
    monkeypatch.setattr(console.Heartbeat.__init__, "__defaults__", (30.0, lambda: next(seconds)))
    result = analyze("out")
    assert "cases: 3 of 5, 20 s each, 40 s left" in result.err
    assert "left" not in analyze("quiet", "--quiet").err


def test_a_reader_of_notes_that_leaves_does_not_end_the_run(analyze, monkeypatch, tmp_path):
    from ctinv.cli import console

    def closed(text=None, err=False, **_):
        if err and not str(text).startswith("ctinv:"):
            raise BrokenPipeError

    monkeypatch.setattr(console.click, "echo", closed)
    assert analyze("out").code == 0
    assert len(table(tmp_path / "out")) == 5


def test_without_reports_there_are_the_numbers_alone(analyze, breaking, tmp_path):
    assert analyze("out", "--no-report").code == 0
    assert {p.name for p in (tmp_path / "out" / "3").iterdir()} == {"arrays.npz", "result.json"}
    rows, page = table(tmp_path / "out"), (tmp_path / "out" / "report.html").read_text()
    assert len(rows) == 5
    assert "3/report.html" not in page
    breaking.explained.clear()
    assert analyze("out", "--no-report").code == 0
    assert breaking.explained == []
    assert analyze("out").code == 0  # now with them
    assert len(breaking.explained) == 5
    assert len(list((tmp_path / "out" / "3").iterdir())) == 4
    assert "3/report.html" in (tmp_path / "out" / "report.html").read_text()
    breaking.explained.clear()
    assert analyze("out", "--no-report").code == 0  # what is more does no harm
    assert breaking.explained == []
    assert analyze("out", "--no-report", "--seed", 1).code == 0  # but no page may show another answer
    assert len(list((tmp_path / "out" / "3").iterdir())) == 2


def test_numbers_are_the_same_without_reports(analyze, tmp_path):
    analyze("with")
    analyze("without", "--no-report")
    for name in ("arrays.npz", "result.json"):
        one, other = (contents(tmp_path / out)[f"3/{name}"] for out in ("with", "without"))
        assert one == other
