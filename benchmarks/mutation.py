"""How many small mistakes, planted one at a time in the core of the project, its tests notice.

    python benchmarks/mutation.py [--count 200] [--seed 0] [--only PREFIX ...] [--json FILE]

Works on a copy of the checkout. Once for each room, its tests run unchanged and are watched: how long each
takes and which lines of the core it runs. A mistake is then tried by those tests only that run its line and
take less than `SLOW` seconds, those of the mirrored file first, up to the first failure. What runs far longer
than unchanged counts as noticed. mutmut 3 finds a module by its path and cosmic-ray runs one command for all
files; neither serves where a folder X is imported as ctinv.X and each room has its own tests.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
CORE = (
    "invariance/refinement",
    "invariance/networks/flow.py",
    "invariance/networks/transforms.py",
    "invariance/sampling",
    "invariance/data/io",
    "invariance/data/simulation",
    "invariance/audit",
    "adapters/geometry.py",
    "adapters/names.py",
    "adapters/intensity.py",
    "adapters/calibration.py",
)
SLOW = 5.0  # seconds; tests that take longer are not run for each mistake
MEMORY = 12 << 30  # bytes; a mistake that asks for more is noticed


class Watch:
    """A pytest plugin: which tests run which lines of the core, and for how long."""

    def __init__(self, tree: Path) -> None:
        self.prefix, self.sources = str(tree) + os.sep, tuple(str(tree / part) for part in CORE)
        self.now = ""
        self.names: dict[str, str] = {}  # from a file as Python knows it to its place in the tree
        self.lines: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def trace(self, frame: Any, event: str, _: Any) -> Callable[..., Any] | None:
        known = frame.f_code.co_filename
        if known not in self.names:
            file = os.path.realpath(known)
            self.names[known] = file.removeprefix(self.prefix) if file.startswith(self.sources) else ""
        if not (name := self.names[known]):
            return None

        def line(frame: Any, event: str, _: Any) -> Callable[..., Any]:
            self.lines.setdefault(f"{name}:{frame.f_lineno}", set()).add(self.now)
            return line

        return line(frame, event, None)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.now = nodeid

    def pytest_fixture_setup(self, fixturedef: Any) -> None:
        # What a shared fixture runs is used by every test of the file.
        if fixturedef.scope != "function":
            self.now = self.now.split("::")[0]

    def pytest_runtest_call(self, item: Any) -> None:
        self.now = item.nodeid

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.add(report.nodeid)
        self.now = ""

    def pytest_sessionfinish(self) -> None:
        lines = {line: sorted(tests) for line, tests in self.lines.items()}
        known = [name for name in sys.modules if not name.startswith(("ctinv", "tests", "conftest", "test_"))]
        passed = {test: took for test, took in self.seconds.items() if test not in self.failed}
        Path("watched.json").write_text(json.dumps([lines, passed, sorted(self.failed), known]))


class Only:
    """A pytest plugin: runs the tests named, in that order, and tells which one failed."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: number for number, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        wanted = [item for item in items if item.nodeid in self.place]
        items[:] = sorted(wanted, key=lambda item: self.place[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            Path("failed.txt").write_text(report.nodeid)


def forked(tree: Path, files: list[str], plugin: Any, limit: float, keep_bytecode: bool) -> int | None:
    """Run tests in a process that has every library loaded already; pytest's exit code, None if stopped."""
    child = os.fork()
    if child == 0:
        code = 4
        try:
            os.setsid()
            os.chdir(tree)
            said = os.open("said.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            for stream in (0, 1, 2):
                os.dup2(said, stream)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
            sys.dont_write_bytecode = not keep_bytecode
            os.environ |= {"PYTHONPATH": str(tree / ".path"), "CTINV_CACHE": str(tree / ".cache")}
            sys.path.insert(0, str(tree / ".path"))
            if isinstance(plugin, Watch):
                threading.settrace(plugin.trace)
                sys.settrace(plugin.trace)
            import pytest

            first = ["-x"] if isinstance(plugin, Only) else []
            known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is loaded already
            own = ["-p", "no:cacheprovider", f"--basetemp={tree / '.tmp'}"]
            code = int(pytest.main(["-q", *first, *known, *own, *files], plugins=[plugin]))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    # Seconds of work are limited; the clock runs far longer, for machines that have other work too.
    end = time.monotonic() + 20 * limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return None if code in (-signal.SIGKILL, -signal.SIGXCPU) else code
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def room(file: str) -> Path:
    """The folder of tests that mirrors a source file's."""
    return Path("tests") / Path(file).parent


def watched(tree: Path, folder: Path) -> tuple[dict[str, list[str]], dict[str, float]]:
    """The tests that run each line of the core, and how long each takes."""
    files = sorted(str(file.relative_to(tree)) for file in (tree / folder).glob("test_*.py"))
    for source in sorted((tree / folder.relative_to("tests")).glob("[a-z]*.py")):
        module = ".".join(("ctinv", *folder.parts[1:], source.stem))
        files.append(f"tests/test_doctests.py::test_examples[{module}]")
    if forked(tree, files, Watch(tree), 1800.0, keep_bytecode=True) not in (0, 1):
        raise SystemExit(f"the tests of {folder} do not run:\n{(tree / 'said.txt').read_text()[-2000:]}")
    lines, seconds, failed, known = json.loads((tree / "watched.json").read_text())
    for test in failed:
        print(f"fails without any mistake, left out: {test}", flush=True)
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in known:
            if "backend_" not in name:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    return lines, seconds


def selected(mutant: Mutant, lines: dict[str, list[str]], seconds: dict[str, float]) -> list[str]:
    """Fast tests that run a mutant's lines: the mirrored file first, then the quickest ones."""
    hits = {test for line in mutant.lines for test in lines.get(f"{mutant.file}:{line}", [])}
    fast = [test for test, took in seconds.items() if took < SLOW]
    # Lines run while importing concern every test.
    tests = [t for t in fast if "" in hits or t in hits or t.split("::")[0] in hits]
    mirrored = f"test_{Path(mutant.file).stem}"
    files = [test.split("::")[0] for test in tests]
    took = {file: sum(seconds[t] for t, f in zip(tests, files, strict=True) if f == file) for file in files}

    def order(test: str) -> tuple[bool, float, str, float]:
        file = test.split("::")[0]
        return not Path(file).name.startswith(mirrored), took[file], file, seconds[test]

    return sorted(tests, key=order)


def run(mutant: Mutant, tree: Path, tests: list[str], seconds: dict[str, float]) -> None:
    """Plant a mistake in the copy, run the tests, and take it out again."""
    file, began = tree / mutant.file, time.monotonic()
    source, stat = file.read_bytes(), file.stat()
    (tree / "failed.txt").write_text("")
    try:
        file.write_bytes(source[: mutant.span[0]] + mutant.after.encode() + source[mutant.span[1] :])
        limit = 60.0 + 5 * sum(seconds[test] for test in tests)
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        code = forked(tree, files, Only(tests), limit, keep_bytecode=False) if tests else 5
    finally:
        file.write_bytes(source)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if code in (3, 4):
        raise SystemExit((tree / "said.txt").read_text()[-2000:])
    mutant.status = {0: "survived", 5: "not reached", None: "timed out"}.get(code, "killed")
    mutant.noticed_by = (tree / "failed.txt").read_text()
    mutant.seconds = round(time.monotonic() - began, 1)


def copied(folder: Path) -> Path:
    """A copy of the checkout in which ``ctinv`` is importable from ``.path``."""
    tree = folder / "tree"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    (tree / ".path" / "ctinv").mkdir(parents=True)
    for package in ("adapters", "zoo", "invariance", "cli", "testing"):
        (tree / ".path" / "ctinv" / package).symlink_to(tree / package)
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT.parent / "shared")
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mistakes drawn from all of the core")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[""], help="of those drawn, the ones in these files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    paths = [ROOT / part for part in CORE]
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    every = [mutant for file in files for mutant in mutants(ROOT, str(file.relative_to(ROOT)))]
    drawn = random.Random(options.seed).sample(every, min(options.count, len(every)))
    # Left in the order drawn, so that what a broken-off run has tried is a random sample too.
    drawn = [mutant for mutant in drawn if mutant.file.startswith(tuple(options.only))]
    print(f"{len(drawn)} of {len(every)} possible mistakes, seed {options.seed}", flush=True)
    tried: list[Mutant] = []
    rooms: dict[Path, Any] = {}
    with tempfile.TemporaryDirectory(prefix="ctinv-mutation-") as folder:
        tree = copied(Path(folder))
        try:
            for mutant in drawn:
                if room(mutant.file) not in rooms:
                    rooms[room(mutant.file)] = watched(tree, room(mutant.file))
                lines, seconds = rooms[room(mutant.file)]
                run(mutant, tree, selected(mutant, lines, seconds), seconds)
                tried.append(mutant)
                change = f"{mutant.kind}: {mutant.before} -> {mutant.after}".replace("\n", " ")
                print(
                    f"{mutant.status:11} {mutant.seconds:5.1f} s  {mutant.file}:{mutant.line}  {change}",
                    flush=True,
                )
        finally:
            noticed = sum(mutant.status in ("killed", "timed out") for mutant in tried)
            share = noticed / max(1, len(tried))
            print(f"noticed {noticed} of {len(tried)}: {100 * share:.0f} %")
            if options.json:
                table = [asdict(mutant) for mutant in tried]
                report = {"seed": options.seed, "count": options.count, "score": share, "mutants": table}
                options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
