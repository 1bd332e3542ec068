"""The real command in a child that is forked after the imports, so that a start costs milliseconds."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Command", "import_everything", "run", "start"]

_MODULES = (
    "torch",
    "onnx",
    "onnxruntime",
    "pydicom",
    "scipy.ndimage",
    "ctinv.cli.app",
    "ctinv.adapters",
    "ctinv.zoo",
    "ctinv.invariance.data",
    "ctinv.invariance.explaining.explainer",
    "ctinv.invariance.fitting.fit_layers",
    "ctinv.invariance.runs.loop",
    "ctinv.invariance.runs.pages",
    "ctinv.zoo.exporting",
    "ctinv.cli.analyze",
    "ctinv.cli.fit",
    "ctinv.cli.probe",
    "ctinv.cli.zoo",
)
_POLL = 0.01


def import_everything() -> None:
    """Import what the commands use, so that children need not; nothing is computed, no thread is started."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in _MODULES:
        importlib.import_module(name)


@dataclass
class Command:
    """A command at work.

    Arguments:
        pid: Its process.
        log: Where its output goes.
        code: Its exit code once it has ended, the negative number of a signal.
        processor: Seconds of processors that it took.
    """

    pid: int
    log: Path
    code: int | None = None
    processor: float = 0.0

    def over(self) -> bool:
        """Whether it has ended."""
        if self.code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.processor = used.ru_utime + used.ru_stime
        return self.code is not None

    def wait(self, seconds: float = 3600.0) -> int | None:
        """Its exit code, the negative number of a signal, or None where it has not ended by then."""
        end = time.monotonic() + seconds
        while not self.over() and time.monotonic() < end:
            time.sleep(_POLL)
        return self.code

    def kill(self) -> None:
        """End it as ``kill -9`` does, with all that it has started."""
        if not self.over():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def memory(self) -> int:
        """Bytes of memory that it holds now; 0 once it has ended."""
        import psutil

        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            return 0


def start(words: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> Command:
    """Start ``ctinv`` with these words in a child.

    Arguments:
        words: The command line.
        log: Gets all it says.
        environment: What to add to the environment's variables.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # so that the group is there whoever is first
            os.setpgid(pid, pid)
        return Command(pid, log)
    code = 70
    try:
        os.setpgid(0, 0)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.environ.update(environment or {})
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from ctinv.cli.app import main

        code = main([str(word) for word in words])
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(words: Sequence[object], log: Path, environment: Mapping[str, str] | None = None) -> int | None:
    """Start a command and wait for its end."""
    return start(words, log, environment).wait()
