"""Readers of the output that leave, streams that are closed or full: the work ends as it would otherwise."""

import contextlib
import importlib
import os
import sys

import numpy as np
import pytest
from ctinv.cli import app
from ctinv.cli.app import main

from .conftest import Explainer

# So that children need not import it.
for name in (
    "ctinv.cli.analyze",
    "ctinv.cli.zoo",
    "ctinv.invariance.explaining.explainer",
    "ctinv.zoo.network",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

NO_TRACE = "Traceback"


def in_child(words, out, err):
    """The exit code of a command whose output goes to these files, as a process of its own would end."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        if torch := sys.modules.get("torch"):  # threads of the parent are not there to be waited for
            torch.set_num_threads(1)
        for number, file in ((1, out), (2, err)):
            if file is None:
                os.close(number)
            else:
                os.dup2(file, number)
        sys.stdout = None if out is None else open(1, "w")  # noqa: SIM115
        sys.stderr = None if err is None else open(2, "w", buffering=1)  # noqa: SIM115
        code = main([str(word) for word in words])
        try:  # the interpreter flushes once more at its end
            sys.stdout.flush()
            sys.stderr.flush()
        except OSError:
            code = 120
    except SystemExit as end:
        code = end.code
    finally:
        os._exit(code)


@pytest.fixture
def ends(tmp_path):
    """A pipe that nobody reads, a disk that is full, and a file."""
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    file = os.open(tmp_path / "told.txt", os.O_RDWR | os.O_CREAT)
    yield {"left": writer, "full": full, "closed": None, "file": file}
    for one in (writer, full, file):
        os.close(one)


def told(ends):
    os.lseek(ends["file"], 0, os.SEEK_SET)
    return os.read(ends["file"], 100_000).decode()


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in range(2):
        np.save(folder / f"{name}.npy", rng.normal(0, 50, (32, 32)).astype(np.float32))
    return folder


@pytest.fixture
def commands(fits, scans, tmp_path, monkeypatch):
    """Commands of all kinds that print, and what they end with."""
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.figure_png", lambda _: b"no picture")
    monkeypatch.setattr("ctinv.invariance.reporting.explanation.report_html", lambda *_, **__: "no page")
    analyze = ["analyze", "-m", "chen", "-l", "conv1", "-n", 2, "--keep-names"]
    broken = Explainer.explain

    def explain(self, image, **options):
        if options["seed"] == 7 and image.name == "1.npy":
            raise RuntimeError("odd")
        return broken(self, image, **options)

    monkeypatch.setattr(Explainer, "explain", explain)
    return {
        "list": (["zoo", "list"], 0),
        "json": (["zoo", "list", "--json"], 0),
        "layers": (["layers", "-m", "chen"], 0),
        "info": (["cache", "info"], 0),
        "inspect": (["data", "inspect", scans / "0.npy"], 0),
        "one": ([*analyze, "-i", scans / "0.npy", "-o", tmp_path / "one"], 0),
        "many": ([*analyze, "-i", scans, "-o", tmp_path / "many"], 0),
        "many json": ([*analyze, "-i", scans, "-o", tmp_path / "many-json", "--json"], 0),
        "failed": ([*analyze, "-i", scans, "-o", tmp_path / "failed", "--seed", 7], 3),
        "failed json": ([*analyze, "-i", scans, "-o", tmp_path / "failed-json", "--seed", 7, "--json"], 3),
        "wrong": (["zoo", "nothing"], 2),
        "no words": ([], 2),
        "help": (["--help"], 0),
    }


@pytest.mark.parametrize(
    ("name", "end", "stream"),
    [
        *((name, "left", "both") for name in ("list", "layers", "info", "inspect", "one", "many")),
        ("json", "left", "out"),
        ("many", "left", "out"),
        ("many json", "left", "err"),
        ("list", "closed", "out"),
        ("many", "closed", "both"),
    ],
)
def test_a_reader_that_has_left_is_no_failure(commands, ends, name, stream, end):
    words, code = commands[name]
    out, err = (ends[end] if stream in (one, "both") else ends["file"] for one in ("out", "err"))
    assert in_child(words, out, err) == code
    assert NO_TRACE not in told(ends)
    assert "Errno" not in told(ends)


@pytest.mark.parametrize("name", ["failed", "failed json", "wrong", "no words", "help"])
@pytest.mark.parametrize("end", ["left", "closed"])
def test_the_exit_code_is_the_one_that_it_would_have_been(commands, ends, name, end):
    words, code = commands[name]
    assert in_child(words, ends[end], ends["file"]) == code
    assert in_child(words, ends["file"], ends[end]) == code
    assert NO_TRACE not in told(ends)


@pytest.mark.parametrize("name", sorted(app._COMMANDS))
def test_help_of_every_command_may_be_left_unread(ends, name):
    assert in_child([name, "--help"], ends["left"], ends["file"]) == 0
    assert told(ends) == ""


@pytest.mark.parametrize("name", ["list", "json", "many", "help"])
def test_output_onto_a_full_disk_is_told_on_one_line(commands, ends, name):
    assert in_child(commands[name][0], ends["full"], ends["file"]) == 2
    last = told(ends).splitlines()[-1]
    assert last.startswith("ctinv: ")
    assert "no space left on device" in last
    assert NO_TRACE not in told(ends)


def test_what_was_analysed_is_there_though_nobody_read_of_it(commands, ends, tmp_path):
    in_child(commands["many"][0], ends["left"], ends["left"])
    assert sorted(p.parent.name for p in (tmp_path / "many").rglob("result.json")) == ["0", "1"]
    assert (tmp_path / "many" / "runs.csv").is_file()
