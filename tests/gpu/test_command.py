"""``make gpu`` says clearly where it cannot run, and reads what the tests report."""

import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_without_a_gpu_it_says_so_and_exits_with_2(tmp_path):
    if torch.cuda.is_available():
        return
    words = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--json", tmp_path / "gpu.json"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("make gpu: PyTorch ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "gpu.json").exists()


def test_outcomes_are_read_from_the_report(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu

    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="a" name="b" time="1.5"/>'
        '<testcase classname="a" name="c"><failure/></testcase>'
        '<testcase classname="a" name="d"><skipped/></testcase></testsuite></testsuites>'
    )
    found = gpu.read_report(tmp_path / "tests.xml")
    assert [(case["name"], case["outcome"]) for case in found] == [
        ("a.b", "passed"),
        ("a.c", "failed"),
        ("a.d", "skipped"),
    ]


def test_make_runs_it():
    assert "benchmarks/gpu.py" in (ROOT / "Makefile").read_text()
