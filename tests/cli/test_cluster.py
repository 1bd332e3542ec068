"""``ctinv analyze --scheduler``: Dask's workers do the cases, and one that dies loses nothing."""

import csv
import json
import os
import subprocess
import sys
import time

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


@pytest.fixture
def cluster(tmp_path):
    """A scheduler with two workers, each a process: its address, and the workers."""
    pytest.importorskip("distributed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CTINV_CACHE": str(tmp_path / "cache")}

    def start(*words):
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
        with (tmp_path / f"{words[0]}.log").open("a") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    file = tmp_path / "scheduler.json"
    started = [start("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file)]
    while not file.exists():
        time.sleep(0.05)
    address = json.loads(file.read_text())["address"]
    options = ("--nthreads", "1", "--nworkers", "1", "--no-dashboard", "--no-nanny", "--death-timeout", "60")
    started += [start("dask_worker", address, *options) for _ in range(2)]
    yield address, started[1:], environment
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("count", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_loses_no_case(cluster, tmp_path, count):
    address, workers, environment = cluster
    scans = tmp_path / "scans"
    for folder, noise in ((scans, 30), (tmp_path / "quiet", 5)):
        folder.mkdir()
        rng = np.random.default_rng(0)
        for name in range(count):
            np.save(folder / f"{name}.npy", rng.normal(40, noise, (64, 64)).astype(np.float32))

    def analyze(out, *words):
        command = ("analyze", "-m", "chen", "-l", "conv5", "-i", scans, "--keep-names", "--no-report")
        command += ("--data", f"low={scans},high={tmp_path / 'quiet'}", "-o", tmp_path / out)
        words = [sys.executable, "-m", "ctinv.cli", *map(str, command), *TINY, *words]
        with (tmp_path / f"{out}.log").open("w") as log:
            return subprocess.Popen(words, env=environment, stdout=log, stderr=log)

    running = analyze("cluster", "--scheduler", address)
    while len(list((tmp_path / "cluster").rglob("result.json"))) < count // 4:
        assert running.poll() is None, (tmp_path / "cluster.log").read_text()
        time.sleep(0.05)
    workers[0].kill()
    assert running.wait() == 0, (tmp_path / "cluster.log").read_text()
    assert analyze("alone").wait() == 0
    with (tmp_path / "cluster" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["folder"] for row in rows] == [str(name) for name in range(count)]
    assert {row["status"] for row in rows} == {"done"}
    for name in range(count):
        one, other = (tmp_path / out / str(name) / "arrays.npz" for out in ("cluster", "alone"))
        assert one.read_bytes() == other.read_bytes()
    assert len(list((tmp_path / "cache" / "explainers").iterdir())) == 1
