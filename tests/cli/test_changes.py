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


@pytest.mark.parametrize(
    ("words", "message"),
    [
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
