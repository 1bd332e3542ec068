"""Many short calls of the command line, in children that may die over them."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SECONDS", "Outcome", "call_all", "faults", "summary"]

SECONDS = 60.0  # of a processor, that one call may take
_ROOM = 4 << 30  # bytes that one call may take on top of what all share
_EACH = 100  # calls of one child


@dataclass(frozen=True)
class Outcome:
    """How one call ended.

    Arguments:
        name: Which.
        code: Its exit code; the negative number of the signal that ended the process; None: too slow.
        told: What it said on standard error.
        seconds: Of a processor.
    """

    name: str
    code: int | None
    told: str
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with it; empty where it ended as it should."""
        if self.code is None:
            return f"took more than {SECONDS:.0f} s"
        if self.code < 0:
            return f"ended the process ({signal.Signals(-self.code).name})"
        lines = [line for line in self.told.splitlines() if line.startswith("ctinv:")]
        if self.code not in (0, 2):
            return f"exit code {self.code}: {lines[-1] if lines else self.told[-200:]}"
        if "Traceback" in self.told:
            return "a traceback"
        helped = "Usage: " in self.told and not lines  # a group of commands alone shows its help
        if self.code == 2 and len(lines) != 1 and not helped:
            return f"{len(lines)} lines of error"
        return ""


def call_all(
    calls: Sequence[tuple[str, Callable[[Path], Sequence[str]]]], setting: dict[str, str]
) -> list[Outcome]:
    """Make calls one after another, many in one child; one that dies costs its own call alone.

    Arguments:
        calls: Name of each, and what gives its command line once it gets an empty folder.
        setting: What to add to the environment.
    """
    found: list[Outcome] = []
    while len(found) < len(calls):
        found += _some(calls[len(found) : len(found) + _EACH], setting)
    return found


def _some(
    calls: Sequence[tuple[str, Callable[[Path], Sequence[str]]]], setting: dict[str, str]
) -> list[Outcome]:
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.environ.update(setting)
            if torch := sys.modules.get("torch"):  # threads of the parent are not there to be waited for
                torch.set_num_threads(1)
            _serve(calls, os.fdopen(writer, "w"))
        finally:
            os._exit(0)
    os.close(writer)
    found, overtime = _listen(calls, reader, pid)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if len(found) < len(calls) and (overtime or status):
        found.append(Outcome(calls[len(found)][0], None if overtime else status, "", 0.0))
    return found


def _listen(calls: Sequence[Any], reader: int, pid: int) -> tuple[list[Outcome], bool]:
    """What a child tells until it is through, dead, or too slow."""
    import psutil

    process, found, rest, since = psutil.Process(pid), [], b"", 0.0
    while True:
        ready, _, _ = select.select([reader], [], [], 2.0)
        if ready:
            piece = os.read(reader, 1 << 16)
            if not piece:
                return found, False
            *lines, rest = (rest + piece).split(b"\n")
            found += [Outcome(**json.loads(line)) for line in lines]
            if lines:
                since = _spent(process)
        elif _spent(process) - since > SECONDS:
            os.kill(pid, signal.SIGKILL)
            return found, True


def _spent(process: Any) -> float:
    """Seconds of a processor, those of its own children included."""
    try:
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    except Exception:  # it has ended
        return 0.0


def _serve(calls: Sequence[tuple[str, Callable[[Path], Sequence[str]]]], told: Any) -> None:
    import faulthandler
    import resource

    from ctinv.cli.app import main

    faulthandler.disable()  # that a child may die is what it is for

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name, make in calls:
        with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+", encoding="utf-8") as said:
            words = [str(word) for word in make(Path(home))]
            os.chdir(home)
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            begun = time.process_time()
            try:
                code: Any = main(words)
            except SystemExit as end:
                code = end.code
            except BaseException as error:  # what escapes is what is looked for
                code, _ = 1, sys.stderr.write(f"ctinv: escaped {type(error).__name__}: {error}")
            sys.stderr.flush()
            seconds = time.process_time() - begun
            said.seek(0)
            text = said.read()[-3000:]
            os.chdir("/")
        line = {"name": name, "code": int(code or 0), "told": text, "seconds": round(seconds, 2)}
        told.write(json.dumps(line) + "\n")
        told.flush()


def faults(found: Sequence[Outcome]) -> list[str]:
    """What went wrong, call by call."""
    return [f"{one.name}: {one.fault}" for one in found if one.fault]


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """Counts by exit code, the slowest, and all faults."""
    return {
        "n": len(found),
        "codes": dict(Counter(str(one.code) for one in found)),
        "slowest_s": max((one.seconds for one in found), default=0.0),
        "faults": faults(found),
    }
