"""Signals, kills and disks that fail: nothing is left half-written, and the next run goes on."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ctinv import invariance
from ctinv.cli.app import main

from .conftest import Explainer

# A run whose fit and explanations are stand-ins: all else, the files above all, is real.
RUN = """
import sys, time
from ctinv import invariance
from ctinv.cli import main
from {conftest} import Explainer

def fit(denoiser, layers, **options):
    return [Explainer(denoiser, layer) for layer in layers]

invariance.fit = fit
sys.exit(main(sys.argv[1:]))
"""
FILES = {"arrays.npz", "figure.png", "report.html", "result.json"}


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in range(6):
        np.save(folder / f"{name}.npy", rng.normal(0, 50, (32, 32)).astype(np.float32))
    return folder


@pytest.fixture
def start(scans, tmp_path):
    """Starts the command in a process of its own."""
    script = tmp_path / "run.py"
    script.write_text(RUN.format(conftest="conftest"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(__file__), environment.get("PYTHONPATH", "")]
    )

    def call(out, *, stdout=subprocess.DEVNULL):
        words = ("analyze", "-m", "chen", "-l", "conv1", "-i", scans, "--keep-names", "-n", "2", "-o", out)
        return subprocess.Popen(
            [sys.executable, script, *map(str, words)],
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call


def arrays(out):
    return {p.parent.name: p.read_bytes() for p in sorted(out.rglob("arrays.npz"))}


def whole(out):
    """Everything that a run has left can be read, hidden drafts aside."""
    for file in out.rglob("*"):
        if file.name == "result.json":
            json.loads(file.read_text())
        elif file.name == "arrays.npz":
            with np.load(file, allow_pickle=False) as stored:
                assert all(np.isfinite(stored[name]).all() for name in stored.files)
        elif file.name == "figure.png":
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82")
        elif file.suffix == ".html":
            assert file.read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_the_run_with_130_and_leaves_whole_files(start, tmp_path, name):
    out = tmp_path / "out"
    running = start(out)
    while not list(out.rglob("result.json")):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    running.send_signal(getattr(signal, name))
    told = running.communicate()[1].splitlines()
    if running.returncode == 0:  # it was faster than the signal
        pytest.skip("the run had ended")
    assert running.returncode == 130
    assert told[-1] == "ctinv: interrupted; no file is left half-written"
    whole(out)
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]
    rows = (out / "runs.csv").read_text().splitlines()
    assert 1 < len(rows) <= 7


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(start, tmp_path):
    kills = int(os.environ.get("CTINV_KILLS", "20"))
    rng = random.Random(0)
    plain = start(tmp_path / "plain")
    begun = time.monotonic()
    plain.communicate()
    takes = time.monotonic() - begun
    out = tmp_path / "out"
    for _ in range(kills):
        running = start(out)
        time.sleep(rng.uniform(0.2, 1.0) * takes)
        running.kill()
        running.communicate()
        if out.exists():
            whole(out)
        if rng.random() < 0.5:  # some of it done anew
            for file in list(out.rglob("result.json"))[:3]:
                file.unlink()
    last = start(out)
    assert last.communicate() is not None
    assert last.returncode == 0
    assert arrays(out) == arrays(tmp_path / "plain")
    table = (out / "runs.csv").read_text().splitlines()
    assert len(table) == 7


def fits(monkeypatch):
    def fit(denoiser, layers, **options):
        return [Explainer(denoiser, layer) for layer in layers]

    monkeypatch.setattr(invariance, "fit", fit)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("at", [1, 3])
def test_a_disk_that_fails_while_results_are_written(run, monkeypatch, scans, tmp_path, fault, at):
    """The run ends with one line; what was written before stays whole, and the rest can follow."""
    fits(monkeypatch)
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.figure_png", lambda _: b"no picture")
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.report_html", lambda *_, **__: "no page")
    out, rename, count = tmp_path / "out", os.replace, 0

    def fail(source, target):
        nonlocal count
        if os.path.basename(target) == "result.json":
            count += 1
            if count >= at:
                raise OSError(fault, os.strerror(fault))
        rename(source, target)

    words = ("analyze", "-m", "chen", "-l", "conv1", "-i", scans, "--keep-names", "-n", 2, "-o", out)
    monkeypatch.setattr(os, "replace", fail)
    result = run(*words)
    assert result.code == 2
    assert os.strerror(fault).lower() in result.err.splitlines()[-1]
    assert str(out) in result.err.splitlines()[-1]
    assert len(list(out.rglob("result.json"))) == at - 1
    assert not [p for p in out.rglob("*") if p.name.endswith(".part")]
    monkeypatch.setattr(os, "replace", rename)
    assert run(*words).code == 0
    assert len(list(out.rglob("result.json"))) == 6


def test_a_clock_that_is_turned_back_does_no_harm(run, monkeypatch, scans, tmp_path):
    fits(monkeypatch)
    seconds = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    words = ("analyze", "-m", "chen", "-l", "conv1", "-i", scans / "0.npy", "-n", 2, "-o", tmp_path / "out")
    assert run(*words).code == 0
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_running_out_of_memory_halves_the_batch():
    from ctinv.invariance.infra.memory import Budget

    tried = []

    def work(batch):
        tried.append(batch)
        if batch > 2:
            raise MemoryError
        return batch

    assert Budget(16).run(work) == 2
    assert tried == [16, 8, 4, 2]


# Words of every kind: what the parser knows, what it does not, and what breaks parsers.
WORDS = [
    "analyze",
    "fit",
    "sample",
    "layers",
    "gather",
    "cache",
    "info",
    "probe",
    "zoo",
    "list",
    "data",
    "-m",
    "--model",
    "chen",
    "-l",
    "conv1",
    "all",
    "*",
    "[",
    "-i",
    "-o",
    "--shard",
    "0/0",
    "1/2",
    "9/3",
    "--samples",
    "-1",
    "1e9",
    "nan",
    "--json",
    "--set",
    "a=b",
    "=",
    "fit.steps=x",
    "--preset",
    "tiny",
    "huge",
    "",
    " ",
    "\u202e",
    "é" * 400,
    "--",
    "--seed",
    "2",
    "--rho",
    "0",
    "--quantiles",
    "1,2",
    "--memory",
    "-5GB",
    "--intensity",
    "unit:::",
    "/dev/null",
    "--scheduler",
    "x",
    "--help",
    "--debug",
]


def lines_of_commands(count, seed):
    rng = random.Random(seed)
    return [[rng.choice(WORDS) for _ in range(rng.randrange(1, 8))] for _ in range(count)]


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_command_lines_of_any_kind_end_with_0_or_2_and_one_line(monkeypatch, tmp_path, capfd, count):
    fits(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for words in lines_of_commands(count, 0):
        code = main(words)
        told = capfd.readouterr().err
        assert code in (0, 2), (words, told)
        assert "internal error" not in told, (words, told)
        assert "--debug" in words or "Traceback" not in told, (words, told)
