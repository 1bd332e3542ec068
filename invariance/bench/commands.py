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

_CODE = "import sys; from ctinv.cli import main; sys.exit(main())"


def bench_commands(preset: str = "tiny", samples: int = 250, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Seconds and peak memory (MB) of ``--help`` and of the same analysis twice, each in its own process.

    The cache is an empty one made for this; the first analysis fits, the second finds everything.

    Arguments:
        preset: The preset to analyse with.
        samples: Draws.
        overrides: Preset fields as ``section.field=value``, for example ``fit.steps=10``.

    Raises:
        CtinvError: A command failed.
    """
    with tempfile.TemporaryDirectory(prefix="ctinv-bench-") as folder:
        environment = {**os.environ, "CTINV_CACHE": str(Path(folder) / "cache")}
        sets = [word for text in overrides for word in ("--set", text)]
        analyze = ["analyze", "-m", "yang", "-l", "conv7", "-n", str(samples), "--preset", preset, *sets]
        analyze += ["--out", str(Path(folder) / "out"), "--quiet", "--device", "cpu"]
        help_ = [_timed(["--help"], environment) for _ in range(3)]
        found = {
            "help": min(help_, key=lambda row: row["seconds"]),
            "analyze, first": _timed(analyze, environment),
            "analyze, again": _timed(analyze, environment),
        }
    return {"preset": preset, "samples": samples, "commands": found}


def _timed(arguments: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", _CODE, *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        # Kilobytes on Linux, bytes on macOS.
        peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    else:
        process.wait()
        peak = float("nan")
    seconds = time.perf_counter() - start
    if process.returncode:
        raise CtinvError(f"ctinv {' '.join(arguments)} failed with code {process.returncode}; run it by hand")
    return {"seconds": seconds, "peak_mbytes": peak}
