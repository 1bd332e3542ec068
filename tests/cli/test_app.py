"""The command as a process: what it imports, how it ends, what it leaves behind."""

import os
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest
from ctinv.cli import cli

HEAVY = ("torch", "numpy", "onnx", "onnxruntime", "pydicom", "matplotlib", "scipy", "rich", "zuko", "jinja2")
START = "import sys; from ctinv.cli import main; "


def python(code, *args, **options):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, **options)


def commands(group=cli, path=()):
    yield path
    for name in getattr(group, "list_commands", lambda _: ())(None):
        yield from commands(group.get_command(None, name), (*path, name))


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_imports_nothing_heavy(path):
    code = START + f"c = main(sys.argv[1:]); print([m for m in {HEAVY} if m in sys.modules]); sys.exit(c)"
    done = python(code, *path, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ctinv")
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_import_check_can_fail():
    code = START + f"import numpy; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code).stdout.strip() == "['numpy']"


def test_version(run):
    assert run("--version").out.strip() == f"ctinv {version('ctinv')}"


def test_no_arguments_show_the_help(run):
    result = run()
    assert result.code == 2
    assert "Usage: ctinv" in result.err


@pytest.mark.parametrize(
    "args", [("nonsense",), ("layers",), ("layers", "--model"), ("analyze", "-m", "chen")]
)
def test_bad_usage_is_one_line_and_code_2(run, args):
    result = run(*args)
    assert result.code == 2
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("ctinv: ")
    assert "--help" in result.err


def test_a_reader_that_stops_early_is_no_error():
    code = START + "sys.exit(main(['data', 'inspect', '--help']))"
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(write)
    assert "Traceback" not in done.stderr


# A run that stops in the middle: of the fit, or of writing its first file.
STUCK = {
    "fit": """
import sys, time
from ctinv import invariance
def fit(*_, **__):
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(60)
invariance.fit = fit
""",
    "write": """
import sys, time, pathlib, types
import numpy as np
from ctinv import invariance
from ctinv.invariance.reporting.explanation import Explanation
class Explainer:
    info = types.SimpleNamespace(split=None, notices=None)
    def explain(self, image, **_):
        x = image.hu
        return Explanation(x=x, denoised=x, reconstruction=x, samples=x[None], mean=x, std=x)
invariance.fit = lambda *_, **__: [Explainer()]
whole = pathlib.Path.write_bytes
def write_bytes(self, data):
    whole(self, data[: len(data) // 2])
    print("stuck", file=sys.stderr, flush=True)
    time.sleep(60)
pathlib.Path.write_bytes = write_bytes
""",
}


@pytest.mark.parametrize("where", STUCK)
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_and_says_130(tmp_path, where, kind):
    # Where the tests themselves run in the background, SIGINT is ignored and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heed + STUCK[where] + START + "sys.exit(main())"
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "analyze", "-m", "chen", "-l", "conv1", "-o", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while "stuck" not in (line := process.stderr.readline()):
            assert line, "the run ended before it could be interrupted"
        process.send_signal(kind)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.strip() == "ctinv: interrupted; no file is left half-written"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
