"""Wrong models, weights, images and command lines, some of each: one line and 0 or 2, in little time."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import batteries
from endurance.batches import Outcome, call_all, faults
from endurance.mutants import SEEDS, seed_graph

sys.path.pop(0)

SHORT = {"models": 80, "weights": 30, "images": 80, "commands": 60}


@pytest.mark.parametrize("kind", SHORT)
def test_each_ends_with_0_or_2_and_one_line(kind, tmp_path):
    calls = batteries.KINDS[kind](SHORT[kind], 0)
    found = call_all(calls, {"CTINV_TRUST_MODELS": "1", "CTINV_CACHE": str(tmp_path)})
    found = batteries.with_trial(calls, found)
    assert faults(found) == []
    assert [one.name for one in found] == [name for name, _ in calls]
    if kind != "commands":
        assert {one.code for one in found} == {0, 2}  # neither all refused nor all taken


def test_the_seeds_are_sound(tmp_path):
    """What is mutated would be read as it is."""

    def call(number):
        def words(home):
            (home / "m.onnx").write_bytes(seed_graph(number).SerializeToString())
            return ["layers", "-m", str(home / "m.onnx")]

        return str(number), words

    calls = [call(number) for number in range(SEEDS)]
    found = call_all(calls, {"CTINV_TRUST_MODELS": "1", "CTINV_CACHE": str(tmp_path)})
    assert [one for one in found if one.code != 0] == []


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended the process (SIGSEGV)"),
        ("raise RuntimeError('odd')", "exit code 1: ctinv: escaped RuntimeError: odd"),
        ("raise SystemExit(7)", "exit code 7"),
    ],
)
def test_faults_are_seen_and_cost_one_call_each(monkeypatch, end, told):
    """The battery would be worthless if it could not fail."""

    def main(words):
        if words == ["bad"]:
            exec(end, {})
        return 0

    monkeypatch.setattr("ctinv.cli.app.main", main)
    calls = [(str(n), lambda _, n=n: ["bad" if n == 1 else "good"]) for n in range(4)]
    found = call_all(calls, {})
    assert [one.code == 0 for one in found] == [True, False, True, True]
    (fault,) = faults(found)
    assert fault.startswith(f"1: {told}")


@pytest.mark.parametrize(
    ("words", "setting", "told"),
    [
        (["gather", "a\0b"], {}, "null byte"),
        (["fit", "-m", "chen", "-l", "conv1"], {"WORLD_SIZE": "x"}, "WORLD_SIZE is 'x'"),
        (["fit", "-m", "chen", "-l", "conv1"], {"WORLD_SIZE": "2"}, "do not find each other"),
        (["cache", "info"], {"CTINV_CACHE_SIZE": "much"}, "no amount of memory"),
    ],
)
def test_faults_that_were_found(words, setting, told):
    (found,) = call_all([("call", lambda _: words)], setting)
    assert (found.code, found.fault) == (2, "")
    assert told in found.told


@pytest.mark.parametrize(
    ("code", "text", "wrong"),
    [
        (0, "", False),
        (2, "Usage: ctinv cache", False),
        (2, "ctinv: no", False),
        (2, "", True),
        (2, "ctinv: no\nctinv: yes", True),
        (0, "Traceback (most recent call last)", True),
        (1, "ctinv: internal error", True),
        (130, "ctinv: interrupted", True),
        (-9, "", True),
        (None, "", True),
    ],
)
def test_what_counts_as_a_fault(code, text, wrong):
    assert bool(Outcome("a", code, text, 0.0).fault) is wrong
