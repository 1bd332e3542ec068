"""What is handed out: the wheel holds the package and its data and nothing else, and stays small."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("adapters", "zoo", "invariance", "cli", "testing")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built in a copy, without the network."""
    copy = tmp_path_factory.mktemp("source") / "ctinv"
    skipped = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "build", "_build", "_generated")
    copy.mkdir()
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=skipped)
        else:
            shutil.copy(source, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(out)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def test_it_is_pure_and_small(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")
    assert wheel.stat().st_size < 10_000_000


def test_it_holds_the_whole_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kinds = {".py", ".typed", ".safetensors", ".json", ".md", ".j2", ".css", ".js"}
    on_disk = {
        f"ctinv/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts
    }
    on_disk |= {"ctinv/invariance/py.typed", "ctinv/cli/py.typed", "ctinv/adapters/py.typed"}
    assert names == on_disk


@pytest.mark.slow
def test_it_runs_from_any_folder_without_the_checkout(wheel, tmp_path):
    """Unpacked on the path of an interpreter that knows nothing of this checkout, beside its dependencies."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r});"
        "import ctinv.cli; assert 'site' in ctinv.cli.__file__, ctinv.cli.__file__;"
        "sys.exit(ctinv.cli.main(sys.argv[1:]))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for words in (["zoo", "list"], ["layers", "-m", "yang"], ["data", "inspect", "slice.npy"]):
        (tmp_path / "slice.npy").write_bytes(_slice())
        told = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stderr


def _slice():
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).normal(0, 200, (64, 64)).astype(np.float32))
    return buffer.getvalue()
