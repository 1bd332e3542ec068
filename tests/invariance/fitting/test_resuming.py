"""A fit that is killed at any moment goes on, and ends with the weights of one that was not."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from ctinv import invariance, zoo
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.checkpoints import Checkpoint
from safetensors.torch import load_file

STEPS = 14
FIELDS = {
    "fit.steps": STEPS,
    "fit.patches": 40,
    "fit.batch": 8,
    "fit.check": 4,
    "fit.checkpoint": 3,
    "fit.settled": 0.0,
    "flow.blocks": 1,
}


def images():
    rng = np.random.default_rng(0)
    return [rng.normal(0, 200, (64, 64)).astype(np.float32) for _ in range(3)]


def fit(progress=None, **changes):
    given = {"data": images(), "preset": "tiny", "overrides": {**FIELDS, **changes}}
    return invariance.fit(zoo.load("chen"), "conv5", progress=progress, **given)


class Killed(BaseException):
    """What nobody catches."""


def kill_at(step):
    def progress(stage, done, total):
        if stage == "flow" and done == step:
            raise Killed

    return progress


def weights(explainer):
    return {**explainer.flow.state_dict(), **explainer.embedder.state_dict()}


def assert_same(one, two):
    assert set(weights(one)) == set(weights(two))
    for name, value in weights(one).items():
        assert torch.equal(value, weights(two)[name]), name
    assert one.info["scores"] == two.info["scores"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTINV_CACHE", str(tmp_path_factory.mktemp("whole")))
        return fit()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch, _isolated_cache):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))


def checkpoint():
    (path,) = (cache_root() / "checkpoints").glob("*.safetensors")
    return path


def header(path):
    raw = path.read_bytes()
    stored = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    return json.loads(stored["ctinv"])


@pytest.mark.parametrize("moments", [(1,), (3,), (4, 7, 13), (8, 8)])
def test_interrupted_fits_end_as_if_nothing_had_happened(whole, moments):
    for moment in moments:
        with pytest.raises(Killed):
            fit(kill_at(moment))
    steps = []
    resumed = fit(lambda stage, done, total: steps.append(done) if stage == "flow" else None)
    # Progress is told after the checkpoint of a step is written.
    assert steps[0] == moments[-1] // 3 * 3 + 1
    assert_same(resumed, whole)
    assert not list((cache_root() / "checkpoints").iterdir())


def test_a_fit_that_has_settled_lets_its_rate_fall_and_ends():
    changes = {"fit.settled": 100.0, "fit.warmup": 1}  # no look gains that much: the second one settles
    steps = []
    settled = fit(lambda stage, done, total: steps.append(done) if stage == "flow" else None, **changes)
    curve = settled.info["scores"]["curve"]
    assert [row[0] for row in curve] == [4, 8, 12]
    assert len(steps) == 12
    assert steps[-1] == STEPS  # the bar is full
    (cache_root() / "explainers").rename(cache_root() / "away")
    with pytest.raises(Killed):
        fit(kill_at(10), **changes)
    assert_same(fit(**changes), settled)


def test_a_fit_that_never_settles_makes_all_its_steps():
    assert [row[0] for row in fit().info["scores"]["curve"]] == [4, 8, 12, STEPS]


def test_a_fit_that_was_about_to_end_early_ends_there(whole):
    changes = {"fit.check": 1, "fit.patience": 1, "fit.rate": 3.0, "fit.warmup": 1}
    steps = []
    stopped = fit(lambda stage, done, total: steps.append(done) if stage == "flow" else None, **changes)
    count = len(steps)
    assert count < STEPS
    (cache_root() / "explainers").rename(cache_root() / "away")
    with pytest.raises(Killed):
        fit(kill_at(STEPS), **changes)  # the bar is full when the loop is left
    assert header(checkpoint())["facts"]["step"] == count
    assert_same(fit(**changes), stopped)


def spoil(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    with pytest.raises(Killed):
        fit(kill_at(4), **{"fit.rate": 1e-3})
    (other,) = set(path.parent.glob("*.safetensors")) - {path}
    os.replace(other, path)


def other_sizes(path):
    found = Checkpoint(path.parent, path.stem)
    tensors, facts = found.load()
    tensors["now.flow.mean"] = torch.zeros(3)
    found.save(tensors, facts)


@pytest.mark.parametrize("damage", [spoil, foreign, other_sizes])
def test_checkpoints_of_no_use_are_ignored_with_a_notice(whole, damage):
    with pytest.raises(Killed):
        fit(kill_at(7))
    damage(checkpoint())
    fresh = fit()
    (notice,) = fresh.info["notices"]
    assert "is ignored" in notice
    assert_same(fresh, whole)


def test_an_empty_file_is_no_checkpoint(whole):
    with pytest.raises(Killed):
        fit(kill_at(7))
    empty(checkpoint())
    assert_same(fit(), whole)


@pytest.mark.parametrize("interval", [0, 5])
def test_how_often_checkpoints_are_kept_changes_nothing(whole, interval):
    assert_same(fit(**{"fit.checkpoint": interval}), whole)
    (cache_root() / "explainers").rename(cache_root() / "away")
    with pytest.raises(Killed):
        fit(kill_at(7), **{"fit.checkpoint": interval})
    kept = list((cache_root() / "checkpoints").glob("*")) if interval else []
    assert len(kept) == (1 if interval else 0)
    assert_same(fit(), whole)


def test_without_the_cache_nothing_is_kept():
    given = {"data": images(), "preset": "tiny", "overrides": FIELDS, "cache": False}
    with pytest.raises(Killed):
        invariance.fit(zoo.load("chen"), "conv5", progress=kill_at(10), **given)
    assert not (cache_root() / "checkpoints").exists()


def test_the_last_good_state_outlives_a_loss_that_is_not_finite(monkeypatch):
    from ctinv.invariance.fitting.flow_loop import Objective

    forward, calls = Objective.forward, []

    def failing(self, *inputs):
        calls.append(1)
        return forward(self, *inputs) * (float("nan") if len(calls) == 9 else 1)

    monkeypatch.setattr(Objective, "forward", failing)
    with pytest.raises(
        CtinvError, match=r"diverged at step 8 \(loss nan\); lower fit\.rate.*last good state"
    ):
        fit()
    tensors, facts = Checkpoint(checkpoint().parent, checkpoint().stem).load()
    assert facts["step"] == 6
    assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_a_gradient_that_is_not_finite_stops_before_it_does_harm(monkeypatch):
    from ctinv.invariance.fitting.flow_loop import Objective

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    forward = Objective.forward
    monkeypatch.setattr(Objective, "forward", lambda self, *inputs: Steep.apply(forward(self, *inputs)))
    with pytest.raises(CtinvError, match=r"diverged at step 0 \(loss .*, gradient (nan|inf)\)"):
        fit()


SCRIPT = """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import test_resuming
steps, out, moment, delay = int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])

def arm(stage, done, total):
    if stage == "flow" and 0 < moment <= done and threading.active_count() == 1:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

test_resuming.fit(arm, **{"fit.steps": steps, "fit.checkpoint": 1, "fit.patience": 99}).save(out)
"""


def run(cache, steps, out, moment=-1, delay=0.0):
    """Fit in a process of its own that is killed some time after a step; its exit code."""
    environment = {**os.environ, "CTINV_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    words = (sys.executable, "-c", SCRIPT, os.path.dirname(__file__), steps, out, moment, delay)
    done = subprocess.run([str(w) for w in words], env=environment, capture_output=True, timeout=600)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_processes_resume_to_the_same_bits(tmp_path, kills):
    rng, steps = np.random.default_rng(kills), 30 * (1 + kills // 4)
    assert run(tmp_path / "a", steps, tmp_path / "whole") == 0
    cache, reached = tmp_path / "b", []
    for moment in sorted(rng.choice(np.arange(2, steps - 12), kills, replace=False)):
        # The delay is a few steps long: the kill may fall anywhere, into the writing of a file too.
        assert run(cache, steps, tmp_path / "resumed", moment, rng.uniform(0, 0.05)) == -signal.SIGKILL
        (path,) = (cache / "checkpoints").glob("*.safetensors")
        reached.append(header(path)["facts"]["step"])
        assert reached[-1] >= moment
    assert run(cache, steps, tmp_path / "resumed") == 0
    for name in ("flow", "embedder"):
        one, two = (load_file(tmp_path / w / f"{name}.safetensors") for w in ("whole", "resumed"))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not list((cache / "checkpoints").iterdir())
