"""The protocol on networks of known blindness: what is kept, what is lost, where; restart; seeds."""

import csv
import importlib.util
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ctinv import adapters
from ctinv.adapters.errors import CtinvError, ImageError
from ctinv.invariance.probing.observers.maps import judge_maps
from ctinv.invariance.probing.observers.study import learned_share
from ctinv.invariance.probing.protocol.files import save_protocol
from ctinv.invariance.probing.protocol.record import Protocol
from ctinv.invariance.probing.protocol.run import Subject, plan, run
from ctinv.invariance.probing.protocol.scenes import Anatomy, SliceScene, Uniform, cut
from ctinv.invariance.probing.protocol.station import WINDOW, Station, bank, margin_of
from ctinv.invariance.probing.tasks.task import Task
from torch import nn

TASKS = (Task("detect", 8.0, 4.0), Task("spiculated", 8.0, 15.0))


def _truth():
    path = Path(__file__).parents[4] / "benchmarks" / "truth_networks.py"
    spec = importlib.util.spec_from_file_location("truth_networks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


truth = _truth()


class Plain:
    """White noise on a level: the fastest scene."""

    name, spacing = "white noise", (0.8, 0.8)

    def squares(self, dose, side, count, seed):
        for start in range(0, count, 64):
            draws = np.random.default_rng([seed, round(dose * 1000), side, start])
            noise = draws.standard_normal((min(64, count - start), side, side), dtype=np.float32)
            yield 50 + noise * np.float32(12 / np.sqrt(dose))


class Smoother(nn.Module):
    """Blurs edges away and rounds to whole HU: what is large and faint stays, what is fine is gone."""

    def __init__(self, sigma=3.0):
        super().__init__()
        self.blur, self.whole = truth.Blur(sigma), nn.Identity()

    def forward(self, x):
        return self.whole(torch.round(self.blur(x)))


def subject(net, layers, name=None):
    return Subject.of(adapters.wrap(net.eval(), intensity="hu", name=name or type(net).__name__), layers)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    subjects = [subject(Smoother(), ["blur"]), subject(truth.KeepsAll(), ["blur"])]
    protocol = Protocol(tasks=TASKS, doses=(1.0, 0.5), realisations=128)
    return run(subjects, Plain(), protocol, tmp_path_factory.mktemp("protocol"))


def shares(results, model, task, where):
    return [o.efficiency for o in results.at(model=model, task=task, where=where)]


def test_a_smoother_of_edges_passes_detection_and_fails_characterisation(found):
    assert min(shares(found, "Smoother", "detect", "f(x)")) > 0.75
    assert max(shares(found, "Smoother", "spiculated", "f(x)")) < 0.4
    assert "characterisation" in found.verdict[0]


@pytest.mark.parametrize("task", ["detect", "spiculated"])
@pytest.mark.parametrize("where", ["blur", "f(x)"])
def test_a_keeper_keeps_everything(found, task, where):
    assert shares(found, "KeepsAll", task, where) == pytest.approx([1.0, 1.0], abs=0.12)


def test_x_is_the_same_for_all_denoisers_and_falls_with_dose(found):
    for task in ("detect", "spiculated"):
        one, two = (found.at(model=m, task=task, where="x") for m in ("Smoother", "KeepsAll"))
        assert [replace(o, model="") for o in one] == [replace(o, model="") for o in two]
        ratio = one[0].detectability / one[1].detectability
        assert ratio == pytest.approx(np.sqrt(2), rel=0.2)


def test_d_in_white_noise_is_what_it_should_be(found):
    first, second = TASKS[0].signals((64, 64), (32, 32), (0.8, 0.8))
    ideal = float(np.linalg.norm(second - first)) / 12
    kept = found.at(model="KeepsAll", task="detect", where="x", dose=1.0)[0]
    share = learned_share(7, 64)
    assert kept.detectability == pytest.approx(ideal * np.sqrt(share), rel=0.1)
    assert kept.auc_low < kept.auc < kept.auc_high


def test_maps_that_repeat_each_other_add_nothing_and_blind_ones_give_nothing():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((300, 1, 4))
    signal = np.array([1.5, 0.5, 0, 0])
    image = judge_maps(one, one + signal)
    many = np.concatenate([2 * one, -one, 0.1 * one, rng.standard_normal((300, 5, 4))], 1)
    more = many + np.concatenate([[2 * signal, -signal, 0.1 * signal], np.zeros((5, 4))])
    both = judge_maps(many, more)
    corrected = both.detectability.value / np.sqrt(both.learned) * np.sqrt(image.learned)
    assert corrected == pytest.approx(image.detectability.value, rel=0.06)
    blind = judge_maps(many, many)
    assert (blind.auc.value, blind.detectability.value) == (0.5, 0.0)
    chance = judge_maps(many, rng.standard_normal(many.shape), paired=False)
    assert abs(chance.auc.value - 0.5) < 0.12


@pytest.mark.parametrize(("features", "cases"), [(6, 40), (20, 60)])
def test_what_learning_from_few_cases_costs_is_known(features, cases):
    rng = np.random.default_rng(1)
    signal = np.zeros(features)
    signal[0] = 2.0
    kept = []
    for _ in range(200):
        covariance = np.cov(rng.standard_normal((cases, features)), rowvar=False)
        weights = np.linalg.solve(covariance, signal)
        kept.append((weights @ signal) ** 2 / (weights @ weights) / 4)
    assert np.mean(kept) == pytest.approx(learned_share(features, cases), rel=0.03)


def test_a_run_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    one = subject(truth.KeepsAll(), ["blur"])
    protocol = Protocol(tasks=TASKS[:1], doses=(1.0, 0.5), realisations=32)
    whole = run([one], Plain(), protocol, tmp_path / "a")

    class Stops(Plain):
        def squares(self, dose, side, count, seed):
            if dose == 0.5 and count > 1:
                raise KeyboardInterrupt
            yield from super().squares(dose, side, count, seed)

    with pytest.raises(KeyboardInterrupt):
        run([one], Stops(), protocol, tmp_path / "b")
    assert len(list((tmp_path / "b" / "cases").iterdir())) == 1
    ahead = plan([one], Plain(), protocol, tmp_path / "b")
    assert (ahead.cases, ahead.done, ahead.passes) == (1, 1, 64)
    assert "1 done before" in str(ahead)
    looked = []
    monkeypatch.setattr(Station, "respond", _counting(Station.respond, looked))
    assert run([one], Plain(), protocol, tmp_path / "b") == whole
    assert sum(looked) == 64
    other = replace(protocol, seed=1)
    assert plan([one], Plain(), other, tmp_path / "b").done == 0


def _counting(respond, looked):
    def count(self, squares, channels):
        looked.append(len(squares))
        return respond(self, squares, channels)

    return count


@pytest.mark.parametrize("paired", [True, False])
def test_twice_the_realisations_narrow_the_intervals(paired):
    """Of AUC and d', by the root of two: as those of a protocol come from its channels' responses."""

    def widths(n):
        found = []
        for seed in range(6):
            first, second = np.random.default_rng([seed, n]).standard_normal((2, n, 2, 4))
            study = judge_maps(first, (first if paired else second) + 0.7, paired=paired, resamples=100)
            found.append([e.high - e.low for e in (study.auc, study.detectability)])
        return np.mean(found, 0)

    assert widths(100) / widths(200) == pytest.approx(np.sqrt(2), rel=0.15)


def test_files_hold_all_that_was_found(found, tmp_path):
    files = save_protocol(found, tmp_path / "out")
    assert set(files) == {"figure.png", "outcomes.csv", "shares.csv", "report.html", "result.json"}
    stored = json.loads(files["result.json"].read_text(encoding="utf-8"))
    rows = list(csv.DictReader(io.StringIO(files["outcomes.csv"].read_text(encoding="utf-8"))))
    assert len(rows) == len(stored["outcomes"]) == len(found.outcomes) == 2 * 2 * 2 * 3
    assert float(rows[5]["auc"]) == found.outcomes[5].auc
    means = list(csv.DictReader(io.StringIO(files["shares.csv"].read_text(encoding="utf-8"))))
    assert [float(row["low"]) for row in means] == [s.low for s in found.shares]
    assert stored["shares"][0]["model"] == means[0]["model"]
    assert stored["protocol"]["tasks"] == [t.name for t in TASKS]
    assert files["figure.png"].read_bytes().startswith(b"\x89PNG")
    text = files["report.html"].read_text(encoding="utf-8")
    assert "http" not in text.replace("http-equiv", "")
    assert found.verdict[0].split(":")[0] in text


# -- scenes -------------------------------------------------------------------------------------------


def test_a_uniform_scene_has_the_noise_asked_for():
    scene = Uniform(noise=10.0, pixels=160, spacing=(1.4, 1.4))
    assert scene.places(56) == scene.places(56)
    squares = {d: np.concatenate(list(scene.squares(d, 40, 24, 0))) for d in (1.0, 0.25)}
    assert squares[1.0].mean() == pytest.approx(50, abs=1.5)
    fine = squares[1.0].std()
    assert 8 < fine < 16
    assert squares[0.25].std() == pytest.approx(2 * fine, rel=0.1)
    again = np.concatenate(list(scene.squares(1.0, 40, 16, 0)))
    assert again == pytest.approx(squares[1.0][:16])
    assert np.abs(again - np.concatenate(list(scene.squares(1.0, 40, 16, 1)))).max() > 1


@pytest.mark.slow
def test_an_anatomical_scene_varies_from_place_to_place():
    squares = np.concatenate(list(Anatomy(phantoms=1).squares(1.0, 56, 32, 0)))
    middles = squares[:, 20:36, 20:36].mean((1, 2))
    assert middles.std() > 3
    assert ((middles > -30) & (middles < 220)).all()


def test_a_slice_keeps_its_own_structure():
    x = np.full((96, 96), 40, np.float32) + np.random.default_rng(0).normal(0, 8, (96, 96)).astype(np.float32)
    scene = SliceScene(x, (50, 44), (0.8, 0.8), "one")
    squares = np.concatenate(list(scene.squares(1.0, 56, 20, 0)))
    assert squares.shape == (20, 56, 56)
    assert squares.mean(0) == pytest.approx(x[16:72, 22:78], abs=12)
    with pytest.raises(ImageError, match="further in"):
        next(SliceScene(x, (10, 44), (0.8, 0.8)).squares(1.0, 56, 4, 0))


def test_squares_lie_around_their_places():
    image = np.arange(40 * 50, dtype=np.float32).reshape(1, 40, 50)
    (one, two) = cut(image, [(20, 10), (30, 25)], 9)
    assert (one[4, 4], two[4, 4]) == (image[0, 10, 20], image[0, 25, 30])


# -- layers -------------------------------------------------------------------------------------------


class Strided(nn.Module):
    def __init__(self):
        super().__init__()
        self.pooled, self.flat = nn.AvgPool2d(2), nn.Identity()

    def forward(self, x):
        self.flat(self.pooled(x).mean((2, 3)))
        return x


def test_layers_of_lower_resolution_and_vectors_are_seen_in_their_own_way():
    squares = next(Plain().squares(1.0, 56, 16, 0))
    made = bank(TASKS[0], (0.8, 0.8), ("lg",))
    one = subject(Strided(), ["pooled", "flat"])
    found = Station(one.denoiser, one.layers, squares).respond(squares, made.images)
    assert found["@input"].shape == (16, 1, 5)
    assert found["pooled"].shape == (16, 1, 5)
    assert found["flat"].shape == (16, 1, 1)
    image, half = (found[n][:, 0, 0] for n in ("@input", "pooled"))
    assert np.corrcoef(image, half)[0, 1] > 0.95


def test_the_margin_grows_until_layers_say_the_same():
    example = next(Plain().squares(1.0, 120, 1, 0))
    for net, wanted in ((truth.Blur(0.8), 8), (truth.Blur(4.5), 16)):
        one = subject(net, [])
        assert margin_of(one.denoiser, one.layers, example) == wanted


def test_convolutions_are_taken_where_no_layer_is_named():
    deep = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(12)))
    layers = subject(deep, [], "deep").layers
    assert (layers[0], layers[-1], len(layers)) == ("@input", "@output", 10)
    assert WINDOW % 8 == 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"doses": (2.0,)}, "fractions"), ({"doses": ()}, "fractions"), ({"realisations": 3}, "16 or more")],
)
def test_what_makes_no_protocol_is_refused(asked, said):
    with pytest.raises(CtinvError, match=said):
        Protocol(**asked)
