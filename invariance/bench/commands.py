"""The command line as a user meets it: start-up, a first and a second analysis, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctinv.adapters.errors import CtinvError

__all__ = ["bench_commands"]

# What the system says of an ended process counts the one that it was forked from.
_CODE = """
import runpy, sys
code = 0
module = sys.argv.pop(1)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
try:
    with open("/proc/self/status", encoding="ascii") as lines:
        peak = next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))
except OSError:
    try:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    except ImportError:
        peak = float("nan")
print(peak)
sys.exit(code)
"""


def bench_commands(
    module: str, preset: str = "tiny", samples: int = 250, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Seconds and peak memory (MB) of ``--help`` and of the same analysis twice, each in its own process.

    The cache is an empty one made for this; the first analysis fits, the second finds everything.

    Arguments:
        module: The module that is the command line, run as ``python -m``.
        preset: The preset to analyse with.
        samples: Draws.
        overrides: Preset fields as ``section.field=value``, for example ``fit.steps=10``.

    Raises:
        CtinvError: A command failed.
    """
    with tempfile.TemporaryDirectory(prefix="ctinv-bench-") as folder:
        environment = {**os.environ, "CTINV_CACHE": str(Path(folder) / "cache")}
        sets = [word for text in overrides for word in ("--set", text)]
        analyze = [
            module,
            "analyze",
            "-m",
            "yang",
            "-l",
            "conv7",
            "-n",
            str(samples),
            "--preset",
            preset,
            *sets,
        ]
        analyze += ["--out", str(Path(folder) / "out"), "--quiet", "--device", "cpu"]
        help_ = [_timed([module, "--help"], environment) for _ in range(3)]
        measured = {
            "help": min(help_, key=lambda row: row["seconds"]),
            "analyze, first": _timed(analyze, environment),
            "analyze, again": _timed(analyze, environment),
        }
    return {"preset": preset, "samples": samples, "commands": measured}


def _timed(arguments: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if process.returncode:
        raise CtinvError(
            f"python -m {' '.join(arguments)} failed with code {process.returncode}; run it by hand"
        )
    return {"seconds": seconds, "peak_mbytes": float(process.stdout.split()[-1])}
