"""``ctinv compare`` on finished analyses."""

import json

import numpy as np
import pytest
from ctinv import zoo

from ..invariance.comparing.toys import analysis

MODELS = {"chen": "conv3", "yang": "conv7"}


def of_zoo(name, *, seed=0, x=None):
    """An analysis whose figures are invented and whose samples are noise."""
    denoiser = zoo.load(name)
    rng = np.random.default_rng(seed)
    x = rng.normal(40, 15, (32, 32)).astype(np.float32) if x is None else x
    return analysis(
        name,
        MODELS[name],
        lower=5.0 + seed,
        x=x,
        seed=seed,
        model_hash=denoiser.fingerprint,
        intensity=str(denoiser.intensity),
        output=denoiser.output,
        spacing=[0.8, 0.8],
        preset_fields={"vae": {"patch": 32}},
    )


@pytest.fixture
def runs(tmp_path):
    for name in MODELS:
        of_zoo(name).save(tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_models_of_the_zoo_are_held_against_each_other(run, runs, tmp_path):
    out = tmp_path / "out"
    result = run("compare", runs, "-o", out)
    assert result.code == 0, result.err
    assert {p.name for p in out.iterdir()} == {"figure.png", "images.npz", "report.html", "result.json"}
    stored = json.loads((out / "result.json").read_text())
    assert stored["kind"] == "comparison"
    assert [row["label"] for row in stored["rows"]] == ["chen conv3", "yang conv7"]
    (place,) = stored["places"]
    assert np.array(place["noise_ratio"]).shape == (2, 2)
    assert all(v is not None for row in place["hidden_from_row_seen_by_column"] for v in row)
    with np.load(out / "images.npz") as images:
        assert set(images) == {"x_0", "maps_0", "only_0_0_1", "only_0_1_0"}
        assert images["only_0_0_1"].shape == (3, 32, 32)
    page = (out / "report.html").read_text()
    assert "../runs/chen/report.html" in page
    assert "Invisible to one, visible to the other" in page
    assert "chen conv3" in result.out
    assert "written to" in result.out


def test_json_lists_the_bounds_of_every_case(run, runs, tmp_path):
    result = run("compare", runs / "yang", runs / "chen", "-o", tmp_path / "out", "--json")
    assert [(c["model"], c["layer"], c["slice"]) for c in result.json] == [
        ("yang", "conv7", "slice-1"),
        ("chen", "conv3", "slice-1"),
    ]
    assert [c["lower"] for c in result.json] == [5, 5]
    assert [c["upper"] for c in result.json] == [9, 9]
    assert {"noise", "upper_here", "seed", "dose", "converged"} <= set(result.json[0])


def test_a_file_is_matched_by_its_content(run, tmp_path):
    zoo.export("yang", tmp_path / "mine.onnx")
    from ctinv import adapters

    graph = adapters.load(tmp_path / "mine.onnx")
    known = {"model_hash": graph.fingerprint, "intensity": str(graph.intensity), "output": "image"}
    e = analysis("mine", "conv3", **known)
    e.save_answer(tmp_path / "run")
    without = run("compare", tmp_path / "run", "-o", tmp_path / "out")
    assert without.code == 0, without.err
    named = run("compare", tmp_path / "run", "-m", tmp_path / "mine.onnx", "-o", tmp_path / "out")
    assert named.code == 0, named.err
    wrong = run("compare", tmp_path / "run", "-m", "yang", "-o", tmp_path / "out")
    assert wrong.code == 2
    assert "yang is none of the models that were analysed (mine)" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere does not exist; give folders that ctinv analyze wrote"),
        (["{runs}", "--dose", "2"], "'2' is no list of doses"),
        (["{runs}", "--rho", "0.5"], "common to all: 0.03"),
        (["{runs}", "--dose", "0.5"], "not in the cache"),
        (["{runs}", "--model", "nothing"], "nothing"),
    ],
)
def test_bad_requests_are_refused_in_one_line(run, runs, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    result = run("compare", *(w.format(runs=runs) for w in words), "-o", tmp_path / "out")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_many_slices_and_seeds_make_intervals(run, tmp_path):
    for name in MODELS:
        for k in range(3):
            of_zoo(name, seed=k, x=np.full((16, 16), 40.0 + k, np.float32)).save_answer(
                tmp_path / "runs" / f"{name}{k}"
            )
    result = run("compare", tmp_path / "runs", "-o", tmp_path / "out", "--quiet")
    assert result.code == 0, result.err
    assert "95 %, over 3 slices" in result.out
    assert (tmp_path / "out" / "figure-3.png").is_file()
    assert "not available" not in result.out.splitlines()[3]


def test_doses_are_analysed_again_with_the_kept_fit(run, tmp_path, monkeypatch):
    """The fit is a stand-in; the slices it is asked about are real."""
    from ctinv.invariance.explaining.explainer import Explainer
    from ctinv.invariance.infra.cache import cache_root

    rng = np.random.default_rng(0)
    x = rng.normal(40, 15, (64, 64)).astype(np.float32)
    e = of_zoo("yang", x=x)
    import dataclasses

    from ctinv.invariance.networks.fit_record import FitRecord

    e = dataclasses.replace(e, meta=dataclasses.replace(e.meta, fit=FitRecord(key="kept")))
    e.save_answer(tmp_path / "run")
    (cache_root() / "explainers" / "kept").mkdir(parents=True)
    (cache_root() / "explainers" / "kept" / "config.json").write_text("{}")
    asked = []

    class StandIn:
        def explain(self, image, **options):
            asked.append((image, options))
            dose = image.meta["simulated_dose"]
            again = of_zoo("yang", x=image.hu)
            return dataclasses.replace(
                again, meta=dataclasses.replace(again.meta, dose=dose, source=image.name)
            )

    monkeypatch.setattr(Explainer, "load", classmethod(lambda cls, folder, denoiser: StandIn()))
    result = run("compare", tmp_path / "run", "--dose", "1,0.25", "-o", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert [case["dose"] for case in result.json] == [1, 0.25]
    assert [options["rho"] for _, options in asked] == [0.03, 0.03]
    assert [options["refine"] for _, options in asked] == [3, 3]
    np.testing.assert_array_equal(asked[0][0].hu, x)
    assert asked[1][0].hu.std() > x.std()
    assert len(list((tmp_path / "out" / "doses").rglob("result.json"))) == 2
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [p["labels"] for p in stored["places"]] == [["yang conv7, dose 1", "yang conv7, dose 0.25"]]
