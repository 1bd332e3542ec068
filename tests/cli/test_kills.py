"""Commands that are killed at random moments leave nothing half-written, and the next run ends alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from endurance.whole import content, damage

BENCHMARKS = sys.path.pop(0)

NAMES = ("analyze", "fit", "sample", "probe", "export", "train")
MANY = int(os.environ.get("CTINV_KILLS", "34"))  # of each command; 200 of all


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(tmp_path, name):
    # In a process of its own: one that has computed has threads, and a child forked off it may wait for them.
    words = ["--out", tmp_path, "--kills", str(MANY), "--slices", "3", "--only", name]
    told = tmp_path / "told.json"
    subprocess.run([sys.executable, f"{BENCHMARKS}/kills.py", *words, "--json", told], check=True)
    (row,) = json.loads(told.read_text())["rows"]
    assert (row["half_written"], row["unequal"], row["other_codes"], row["last_code"]) == ([], [], [], 0)
    assert row["kills"] + row["ended_before"] == MANY
    assert row["files"] > 0


def test_damage_is_seen(tmp_path):
    """The trial would be worthless if it could not fail."""
    np.savez(tmp_path / "a.npz", x=np.ones(100))
    (tmp_path / "a.json").write_text('{"x": [1, 2]}')
    (tmp_path / "a.html").write_text("<html></html>")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a.png").write_bytes(b"\x89PNG IEND\xaeB`\x82")
    for file in sorted(tmp_path.iterdir()):
        assert damage(file) == "", file
        raw = file.read_bytes()
        file.write_bytes(raw[:-3])
        assert damage(file) != "", file


def test_times_do_not_count_and_all_else_does(tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1, "timings": {"fit": 2.5}}')
    (tmp_path / "b.json").write_text('{"x": 1, "timings": {"fit": 3.5}}')
    (tmp_path / "c.json").write_text('{"x": 2, "timings": {"fit": 2.5}}')
    one, other, third = (content(tmp_path / f"{name}.json") for name in "abc")
    assert one == other != third
