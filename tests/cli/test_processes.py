"""Several processes under torchrun: the losses of one with a larger batch, slices divided, one writer."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from ctinv import invariance, zoo
from ctinv.invariance.infra.distributed import World

FIELDS = {"fit.steps": 6, "fit.patches": 64, "fit.check": 1, "fit.settled": 0.0, "flow.blocks": 1}


@pytest.fixture
def data():
    """What to fit on."""
    rng = np.random.default_rng(0)
    return [rng.normal(0, 200, (64, 64)).astype(np.float32) for _ in range(4)]


SCRIPT = """
import json, sys
import numpy as np
from ctinv import invariance, zoo
from ctinv.invariance.infra.distributed import joined

images = list(np.load(sys.argv[1]))
fields = json.loads(sys.argv[2])
with joined() as everyone:
    found = invariance.fit(
        zoo.load("chen"), ["conv3", "conv5"], data=images, preset="tiny", overrides=fields
    )
    with open(f"{sys.argv[3]}{everyone.rank}.json", "w") as file:
        json.dump([one.info for one in found], file)
"""


def torchrun(count, *words, cache):
    environment = {**os.environ, "CTINV_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    agent = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}") if count > 1 else ()
    run = [sys.executable, *agent, *map(str, words)]
    for _ in range(4):
        done = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
        # On few processors torch.distributed at times ends a process while its own threads still run:
        # "terminate called without an active exception", and nothing of ours has failed.
        if done.returncode == 0 or "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path, data):
    np.save(tmp_path / "data.npy", np.stack(data))
    (tmp_path / "fit.py").write_text(SCRIPT)
    words = (tmp_path / "fit.py", tmp_path / "data.npy", json.dumps({**FIELDS, "fit.batch": 8}))
    torchrun(2, *words, tmp_path / "info", cache=tmp_path / "cache")
    infos = [json.loads((tmp_path / f"info{rank}.json").read_text()) for rank in (0, 1)]
    fields = {**FIELDS, "fit.batch": 16}
    alone = invariance.fit(
        zoo.load("chen"), ["conv3", "conv5"], data=data, preset="tiny", overrides=fields, cache=False
    )
    for layer, one in enumerate(alone):
        curves = [info[layer]["scores"]["curve"] for info in infos]
        assert curves[0] == curves[1]
        assert len(curves[0]) == FIELDS["fit.steps"]
        np.testing.assert_allclose(curves[0], one.info["scores"]["curve"], rtol=2e-4)
        assert infos[0][layer]["processes"] == 2
    assert len(list((tmp_path / "cache" / "explainers").iterdir())) == 2
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_slices_are_divided_and_summed_up_by_the_first_process(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        np.save(scans / f"{name}.npy", rng.normal(40, 30, (32, 32)).astype(np.float32))
    options = ("--preset", "tiny", "--set", "fit.steps=2", "--set", "fit.patches=32", "-n", 2, "--no-cache")
    given = ("analyze", "-m", "chen", "-l", "conv5", "-i", scans, "--keep-names", "-o", tmp_path / "out")
    given = (*given, *options)
    cache = os.environ["CTINV_CACHE"]  # it may hold the phantoms already
    shown = json.loads(torchrun(2, "-m", "ctinv.cli", *given, "--json", cache=cache))
    assert [entry["source"] for entry in shown] == [f"{name}.npy" for name in "abc"]
    assert (tmp_path / "out" / "report.html").is_file()
    for entry, name in zip(shown, "abc", strict=True):
        assert set(entry["files"]) == {"arrays.npz", "figure.png", "report.html", "result.json"}
        assert entry["fit"]["processes"] == 2
        stored = json.loads((tmp_path / "out" / name / "result.json").read_text(encoding="utf-8"))
        assert {key: value for key, value in entry.items() if key != "files"} == stored


def test_one_process_and_two_draw_the_same_bits(tmp_path, data):
    """From one fit, as fitting by two processes takes other batches; and nothing from a cache."""
    scans = tmp_path / "scans"
    scans.mkdir()
    rng = np.random.default_rng(1)
    for name in "ab":
        np.save(scans / f"{name}.npy", rng.normal(40, 30, (40, 48)).astype(np.float32))
    fields = {"fit.steps": 2, "fit.patches": 32}
    fitted = invariance.fit(
        zoo.load("chen"), "conv5", data=data, preset="tiny", overrides=fields, cache=False
    )
    fitted.save(tmp_path / "fitted")
    given = ("sample", "-m", "chen", "-e", tmp_path / "fitted", "-i", scans, "--keep-names", "-n", 5)
    given = (*given, "--refine", 3)
    found = {}
    for count in (1, 2):
        out, cache = (tmp_path / f"{name}{count}" for name in ("out", "cache"))
        options = (*given, "--quantiles", "0.1,0.9", "-o", out, "--json")
        torchrun(count, "-m", "ctinv.cli", *options, cache=cache)
        assert not cache.exists()
        found[count] = [(out / name / "arrays.npz").read_bytes() for name in "ab"]
    assert found[1] == found[2]
    assert found[1][0] != found[1][1]


def test_a_process_alone_needs_nobody():
    import torch

    world = World()
    assert world.alone
    assert world.leads
    value = torch.ones(3)
    assert torch.equal(world.mean(value), value)
    assert world.shared_bytes(b"abc") == b"abc"
    assert world.machine_text("here") == "here"
    world.wait()
    with world.first():
        pass
