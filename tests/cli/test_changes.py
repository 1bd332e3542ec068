"""``ctinv spectrum``, ``hide``, ``attack`` and ``swap``."""

import json

import numpy as np
import pytest

FILES = {"figure.png", "images.npz", "report.html", "result.json"}


@pytest.fixture
def one(tmp_path):
    np.save(tmp_path / "one.npy", np.random.default_rng(0).normal(40, 12, (48, 48)).astype(np.float32))
    return tmp_path / "one.npy"


COMMANDS = {
    "spectrum": ["-m", "chen", "-l", "conv3", "--count", 1, "--steps", 4],
    "hide": ["-m", "chen", "-l", "conv3", "--ellipse", "24:24:10:8", "--realisations", 0],
    "attack": ["-m", "chen", "-l", "conv1"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_answer_is_shown_and_written(run, one, tmp_path, name):
    result = run(name, *COMMANDS[name], "-i", one, "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert stored["kind"] == name
    assert all(line in " ".join(result.out.split("\n")) for line in stored["verdict"])


def test_several_layers_have_folders_and_one_page(run, one, tmp_path):
    layers = ["-l", "conv1", "-l", "conv3"]
    result = run("hide", "-m", "chen", *layers, "-i", one, "--ellipse", "24:24:10", "--realisations", 0,
                 "-o", tmp_path / "out", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert [entry["layer"] for entry in result.json] == ["conv1", "conv3"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"conv1", "conv3", "report.html"}
    assert "conv3" in (tmp_path / "out" / "report.html").read_text()


def test_a_mask_file_names_the_region(run, one, tmp_path):
    mask = np.zeros((48, 48), np.uint8)
    mask[20:28, 20:28] = 1
    np.save(tmp_path / "mask.npy", mask)
    result = run("spectrum", *COMMANDS["spectrum"], "-i", one, "--mask", tmp_path / "mask.npy", "-o",
                 tmp_path / "out")  # fmt: skip
    assert result.code == 0, result.err
    with np.load(tmp_path / "out" / "images.npz") as images:
        np.testing.assert_array_equal(images["region"], mask > 0)
        assert not images["hidden"][0][mask == 0].any()


def test_a_swap_takes_the_fit_and_another_slice(run, one, tmp_path, monkeypatch):
    from ctinv import invariance
    from ctinv.invariance.changes.about import About
    from ctinv.invariance.changes.swap import Swap

    asked = []

    class Fit:
        def __init__(self, denoiser, name):
            self.denoiser, self.name = denoiser, name

        def swap(self, image, other, *, seed, rho, progress):
            asked.append((image.hu, other))
            about = About.of(self.denoiser, self.name, image, seed=seed, rho=rho)
            x = np.asarray(image.hu)
            return Swap(about, x, other, x, other, other, x, 0.03, 0.5, 0.4)

    monkeypatch.setattr(
        invariance, "fit", lambda denoiser, names, **_: [Fit(denoiser, n) for n in names], raising=False
    )
    words = ["swap", "-m", "chen", "-l", "conv3", "-i", one, "-o", tmp_path / "out"]
    result = run(*words)
    assert result.code == 0, result.err
    np.testing.assert_array_equal(asked[0][1], asked[0][0][::-1])
    two = np.random.default_rng(1).normal(40, 12, (48, 48)).astype(np.float32)
    np.save(tmp_path / "two.npy", two)
    assert run(*words, "--other", tmp_path / "two.npy").code == 0
    np.testing.assert_array_equal(asked[1][1], two)


def test_tissues_have_folders_and_one_page(run, tmp_path):
    hu = np.random.default_rng(0).normal(40, 12, (48, 48)).astype(np.float32)
    hu[:, 24:] += 600
    np.save(tmp_path / "two.npy", hu)
    result = run("spectrum", "-m", "chen", "-l", "conv3", "--count", 1, "--steps", 4, "--tissues", "-i",
                 tmp_path / "two.npy", "-o", tmp_path / "out", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "conv3_in_bone",
        "conv3_in_contrast_medium",  # the edge between them
        "conv3_in_soft_tissue",
        "report.html",
    }
    assert len(result.json) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spectrum", "-l", "conv3", "--tissues", "--ellipse", "9:9:9"], "give one"),
        (["hide", "-l", "conv3", "--mask", "{one}", "--ellipse", "9:9:9"], "give one of them"),
        (["hide", "-l", "conv3", "--lesion", "size=6mm", "--ellipse", "9:9:9"], "give one"),
        (["hide", "-l", "conv3", "--ellipse", "9:9"], "no ellipse"),
        (["spectrum", "-l", "conv3", "--ellipse", "9:9:9", "--mask", "{one}"], "give one of them"),
        (["spectrum", "-l", "nothing"], "nothing"),
        (["spectrum", "-l", "conv3", "--size", "0"], "positive size"),
        (["attack", "--mask", "{one}", "--size", "-1"], "positive size"),
    ],
)
def test_bad_requests_are_refused_in_one_line(run, one, tmp_path, words, message):
    out = tmp_path / "out"
    result = run(words[0], "-m", "chen", *(w.format(one=one) for w in words[1:]), "-i", one, "-o", out, "-q")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not out.exists()


@pytest.fixture
def asking(monkeypatch):
    """A fit that takes no time; what it is asked besides an explanation is real or made up."""
    from ctinv import invariance
    from ctinv.invariance.changes.about import About
    from ctinv.invariance.changes.swap import Swap
    from ctinv.invariance.networks.fit_record import FitRecord
    from ctinv.invariance.reporting.explanation import Explanation
    from ctinv.invariance.reporting.provenance import Provenance

    class Fit:
        info = FitRecord()

        def __init__(self, denoiser, layer):
            self.denoiser, self.layer = denoiser, layer

        def explain(self, image, *, seed, **_):
            x = image.hu
            meta = Provenance(model=self.denoiser.name, layer=self.layer, seed=seed, source=image.name)
            return Explanation(x, x, x, np.stack([x, x + 1]), x, np.ones_like(x), meta=meta)

        def swap(self, image, other, *, seed, rho, progress):
            x, other = np.asarray(image.hu), np.asarray(other.hu)
            about = About.of(self.denoiser, self.layer, image, seed=seed, rho=rho)
            return Swap(about, x, other, x, other, other, x, 0.03, 0.5, 0.4)

        def attack(self, image, *, size, seed, progress):
            return invariance.attack(self.denoiser, image, layers=[self.layer], size=size, seed=seed)

    monkeypatch.setattr(
        invariance, "fit", lambda denoiser, names, **_: [Fit(denoiser, n) for n in names], raising=False
    )


def test_an_analysis_shows_a_swap_and_an_attack_in_its_report(run, one, tmp_path, asking):
    np.save(tmp_path / "two.npy", np.random.default_rng(1).normal(40, 12, (48, 48)).astype(np.float32))
    words = ["analyze", "-m", "chen", "-l", "conv3", "-i", one, "-o", tmp_path / "out"]
    assert run(*words).code == 0
    assert "Swap:" not in (tmp_path / "out" / "report.html").read_text()
    more = [*words, "--swap", tmp_path / "two.npy", "--attack", 5]
    result = run(*more)  # what is there already does not answer that
    assert result.code == 0, result.err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Swap: z of x, the rest of the other" in page
    assert "Attack: f of that" in page
    assert "The small change that moves f(x) of chen most" in page
    with np.load(tmp_path / "out" / "swap" / "images.npz") as images:
        np.testing.assert_array_equal(images["other"], np.load(tmp_path / "two.npy"))
    stored = json.loads((tmp_path / "out" / "attack" / "result.json").read_text())
    assert stored["kind"] == "attack"
    again = run("gather", tmp_path / "out")  # an answer within a case is no case
    assert again.code == 0, again.err
    assert len((tmp_path / "out" / "runs.csv").read_text().strip().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "0"], "positive size"),
        (["--swap", "{small}"], "slices of one shape"),
        (["--swap", "{folder}"], "holds 2 slices"),
    ],
)
def test_further_questions_that_have_no_answer_are_refused(run, one, tmp_path, asking, words, message):
    (tmp_path / "two").mkdir()
    for name in ("small.npy", "two/a.npy", "two/b.npy"):
        np.save(tmp_path / name, np.random.default_rng(1).normal(40, 12, (40, 48)).astype(np.float32))
    given = [w.format(small=tmp_path / "small.npy", folder=tmp_path / "two") for w in words]
    result = run("analyze", "-m", "chen", "-l", "conv3", "-i", one, "-o", tmp_path / "out", "-q", *given)
    assert result.code == 2
    assert message in result.err
    assert not (tmp_path / "out").exists()
