"""``ctinv analyze --scheduler``: Dask's workers do the cases, and one that dies loses nothing."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ctinv.cli.images import Images
from ctinv.cli.question import Question

TINY = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "fit.patches=32", "-n", "2", "--refine", "0")


def test_a_question_survives_the_way_to_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"")
    asked = Question(
        ("m.onnx", "chen"),
        ("conv*",),
        Images(tmp_path.relative_to(tmp_path) / "scans", None, 1024.0, None, "keep"),
        {"data": "low=a,high=b", "preset": "tiny", "overrides": {"fit.steps": "2"}, "seed": 0, "cache": True},
        {"samples": 2, "refine": None, "rho": 0.03, "quantiles": (0.1, 0.9), "seed": 0},
        {"device": "cpu", "feed": (("sigma", "0.1"),)},
        hashes=("a", "b"),
    )
    found = Question.of(asked.text())
    assert found.models == (str(tmp_path / "m.onnx"), "chen")
    assert found.images == Images(tmp_path / "scans", None, 1024.0, None, "keep")
    assert found.fitting["data"] == f"low={tmp_path / 'a'},high={tmp_path / 'b'}"
    assert (found.layers, found.drawing, found.options) == (asked.layers, asked.drawing, asked.options)
    assert Question.of(found.text()) == found


def test_a_scheduler_that_is_not_there_is_refused(run, fits, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("ctinv.cli.cluster._ANSWER", 0.5)
    result = run(
        "analyze", "-m", "chen", "-l", "conv1", "-o", tmp_path / "o", "--scheduler", "tcp://127.0.0.1:1"
    )
    assert result.code == 2
    assert "does not answer" in result.err


# Workers whose fits and explanations are stand-ins, slow enough to be killed at work.
QUICK = """
import time
from ctinv import invariance
from conftest import Explainer

class Slow(Explainer):
    def explain(self, image, **options):
        time.sleep(0.3)
        return super().explain(image, **options)

invariance.fit = lambda denoiser, layers, **_: [Slow(denoiser, layer) for layer in layers]
"""


@pytest.fixture
def cluster(tmp_path):
    """Starts a scheduler with two workers, each a process: its address, the workers, their environment."""
    pytest.importorskip("distributed")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CTINV_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = paths
    started = []

    def start(*words):
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
        with (tmp_path / f"{words[0]}.log").open("a") as log:
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def call(*more):
        file = tmp_path / "scheduler.json"
        start("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        while not file.exists():
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        options = ("--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--no-nanny", *more)
        for _ in range(2):
            start("dask_worker", address, *options, "--death-timeout", "60")
        return address, started[1:], environment

    yield call
    for process in started:
        process.kill()
        process.wait()


def noisy(folder, count, noise):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in range(12):
        image = rng.normal(-1000, noise, (64, 64))
        image[16:48, 16:48] += 1040
        np.save(folder / f"{name}.npy", image.astype(np.float32))
    return folder


def one_is_killed(workers, running, out, log):
    """Kill a worker as soon as a few cases are there; the run must end well."""
    while len(list(out.rglob("result.json"))) < 3:
        assert running.poll() is None, log.read_text()
        time.sleep(0.05)
    workers[0].kill()
    assert running.wait() == 0, log.read_text()


def table(out):
    with (out / "runs.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_nothing(cluster, run, fits, tmp_path):
    (tmp_path / "quick.py").write_text(QUICK)
    address, workers, environment = cluster("--preload", str(tmp_path / "quick.py"))
    scans, log = noisy(tmp_path / "scans", 12, 30), tmp_path / "log"
    words = [
        *["analyze", "-m", "chen", "-l", "conv5", "--keep-names", "--no-report", "-n", "2", "-i"],
        scans,
        "-o",
    ]
    command = [sys.executable, "-m", "ctinv.cli", *words, tmp_path / "cluster", "--scheduler", address]
    with log.open("w") as file:
        running = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    one_is_killed(workers, running, tmp_path / "cluster", log)
    assert run(*words, tmp_path / "alone").code == 0
    rows = table(tmp_path / "cluster")
    assert [row["folder"] for row in rows] == [str(name) for name in range(12)]
    assert rows == table(tmp_path / "alone")
    for name in range(12):
        one, other = (tmp_path / out / str(name) / "arrays.npz" for out in ("cluster", "alone"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_case(cluster, tmp_path):
    """With real fits."""
    address, workers, environment = cluster()
    scans, quiet = noisy(tmp_path / "scans", 12, 30), noisy(tmp_path / "quiet", 12, 5)

    def analyze(out, *words):
        command = ("analyze", "-m", "chen", "-l", "conv5", "-i", scans, "--keep-names", "--no-report")
        command += ("--data", f"low={scans},high={quiet}", "-o", tmp_path / out)
        words = [sys.executable, "-m", "ctinv.cli", *map(str, command), *TINY, *words]
        with (tmp_path / f"{out}.log").open("w") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    running = analyze("cluster", "--scheduler", address)
    one_is_killed(workers, running, tmp_path / "cluster", tmp_path / "cluster.log")
    assert analyze("alone").wait() == 0
    rows = table(tmp_path / "cluster")
    assert [row["folder"] for row in rows] == [str(name) for name in range(12)]
    assert {row["status"] for row in rows} == {"done"}
    for name in range(12):
        one, other = (tmp_path / out / str(name) / "arrays.npz" for out in ("cluster", "alone"))
        assert one.read_bytes() == other.read_bytes()
    assert len(list((tmp_path / "cache" / "explainers").iterdir())) == 1
