"""Imports between the packages point one way only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "zoo", "invariance", "cli")

# What the modules whose name starts with the key may import of the other packages; the longest key counts.
ALLOWED = {
    "ctinv.adapters": (),
    "ctinv.invariance": ("ctinv.adapters",),
    "ctinv.zoo": ("ctinv.adapters",),
    "ctinv.zoo.training": ("ctinv.adapters", "ctinv.invariance.data"),
    "ctinv.cli": ("ctinv.adapters", "ctinv.invariance", "ctinv.zoo"),
}


def _within(name, package):
    return name == package or name.startswith(f"{package}.")


def _imports(tree, module, is_package):
    """Every absolute name that a module imports, at whatever depth of its code."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                yield str(node.args[0].value)


def violations(root):
    """Every import that points the wrong way, as text."""
    found = []
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = ["ctinv", *file.relative_to(root).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            rule = max((key for key in ALLOWED if _within(module, key)), key=len)
            own = ".".join(module.split(".")[:2])
            for name in _imports(ast.parse(file.read_text(encoding="utf-8")), module, is_package):
                foreign = _within(name, "ctinv") and not _within(name, own)
                if foreign and not any(_within(name, good) for good in ALLOWED[rule]):
                    found.append(f"{module} imports {name}")
    return found


def test_imports_point_one_way():
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "seen"),
    [
        ("adapters/a.py", "from ctinv.invariance import data", "ctinv.invariance.data"),
        ("adapters/a.py", "def f():\n    import ctinv.zoo", "ctinv.zoo"),
        ("adapters/__init__.py", "from ..cli import app", "ctinv.cli.app"),
        ("invariance/deep/b.py", "from ...zoo.registry import find", "ctinv.zoo.registry.find"),
        ("invariance/b.py", "import importlib\nimportlib.import_module('ctinv.cli')", "ctinv.cli"),
        ("zoo/c.py", "from ctinv.invariance.data import read", "ctinv.invariance.data.io.read"),
        ("zoo/training/c.py", "from ctinv.invariance import fit", "ctinv.invariance.fit"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, file, line, seen):
    target = tmp_path / file
    target.parent.mkdir(parents=True)
    target.write_text(line)
    module = ".".join(["ctinv", *Path(file).with_suffix("").parts]).removesuffix(".__init__")
    assert violations(tmp_path) == [f"{module} imports {seen}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("invariance/b.py", "from ctinv.adapters.errors import CtinvError\nfrom .files import write_files"),
        ("invariance/data/b.py", "from ..files import write_files"),
        ("zoo/training/c.py", "from ctinv.invariance.data import read"),
        ("cli/d.py", "from ctinv import adapters, invariance, zoo"),
    ],
)
def test_a_right_import_is_let_through(tmp_path, file, line):
    target = tmp_path / file
    target.parent.mkdir(parents=True)
    target.write_text(line)
    assert violations(tmp_path) == []
