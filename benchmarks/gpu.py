"""Everything that only a GPU can show, in one command and one JSON file: ``make gpu``.

    python benchmarks/gpu.py [--json gpu.json] [--minutes 9]

Runs the tests that are marked for a GPU, the agreement of PyTorch and ONNX Runtime on it layer by layer, and
the bench suite for all presets, each for what is left of the time. Without a GPU it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ("tiny", "small", "paper", "paper2024")
TESTS_MINUTES = 4.0  # at most, so that the bench has its share


def no_gpu() -> str:
    """Why there can be no run; empty where there can."""
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} as installed has no CUDA support; install a build that has"
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU; run this on a machine with one"
    return ""


def run(words: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Exit code and the end of what a command said; None where its time ran out."""
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            timeout=max(seconds, 1),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as ended:
        said = ended.stdout or ""
        return None, (said.decode(errors="replace") if isinstance(said, bytes) else said)[-2000:]
    return done.returncode, done.stdout[-2000:]


def tests(seconds: float) -> dict[str, Any]:
    """The tests marked for a GPU, one by one."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        code, said = run(["-m", "pytest", "-q", "-m", "gpu", f"--junit-xml={report}"], seconds)
        cases = read_report(report) if report.is_file() else []
    counts = {
        kind: sum(case["outcome"] == kind for case in cases) for kind in ("passed", "failed", "skipped")
    }
    good = code == 0 and counts["passed"] > 0 and counts["skipped"] == 0
    return {"reached": good, "code": code, **counts, "cases": cases, "said": "" if good else said}


def read_report(path: Path) -> list[dict[str, Any]]:
    """Name, outcome and seconds of each test in a JUnit report."""
    found = []
    for case in ElementTree.parse(path).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname')}.{case.get('name')}"
        found.append({"name": name, "outcome": outcome, "seconds": float(case.get("time") or 0)})
    return found


def parity() -> list[dict[str, Any]]:
    """How far PyTorch and ONNX Runtime are apart on the GPU, layer by layer, over the largest value."""
    import numpy as np
    from ctinv import adapters, zoo
    from ctinv.invariance.infra.randomness import Purpose, rng

    x = rng(0, Purpose.WORKLOAD).normal(0, 200, (2, 1, 128, 128)).astype(np.float32)
    rows = []
    for name in zoo.names():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            zoo.export(name, path)
            onnx_model = adapters.load(path, device="cuda")
        about = zoo.metadata(name)
        units = {"intensity": about["ctinv.intensity"], "output": about["ctinv.output"]}
        torch_model = adapters.wrap(zoo.network(name), device="cuda", **units)
        for layer in torch_model.layers:
            ours, theirs = torch_model.features(x, layer.name), onnx_model.features(x, layer.name)
            apart = float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(ours).max())))
            rows.append({"model": name, "layer": layer.name, "apart": apart, "reached": apart < 1e-3})
    return rows


def bench(preset: str, seconds: float) -> dict[str, Any]:
    """The bench suite for one preset on the GPU, in a process of its own."""
    code_text = (
        "import sys; from ctinv.invariance.bench.suite import bench_suite; "
        f"bench_suite(sys.argv[1], presets=({preset!r},), devices=('cuda',))"
    )
    with tempfile.TemporaryDirectory() as folder:
        code, said = run(["-c", code_text, folder], seconds)
        file = Path(folder) / "bench.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return {"preset": preset, "reached": code == 0, "found": found, "said": "" if code == 0 else said}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--minutes", type=float, default=9.0)
    given = parser.parse_args()
    if reason := no_gpu():
        print(f"make gpu: {reason}", file=sys.stderr)
        return 2
    begun = time.monotonic()

    def left() -> float:
        return 60 * given.minutes - (time.monotonic() - begun)

    import torch

    found: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}
    found["tests"] = tests(min(left(), 60 * TESTS_MINUTES))
    found["parity"] = parity()
    found["bench"] = []
    for number, preset in enumerate(PRESETS):
        found["bench"].append(bench(preset, left() / (len(PRESETS) - number)))
    found["seconds"] = round(time.monotonic() - begun, 1)
    parts = [found["tests"], *found["parity"], *found["bench"]]
    found["reached"] = all(part["reached"] for part in parts) and found["seconds"] <= 60 * given.minutes
    given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(f"{'all reached' if found['reached'] else 'NOT all reached'}: {given.json}")
    return 0 if found["reached"] else 1


if __name__ == "__main__":
    sys.exit(main())
