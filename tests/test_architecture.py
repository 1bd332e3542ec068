"""The rooms of the house: imports go down the floors, never up, and never round in circles."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "zoo", "invariance", "cli", "testing", "benchmarks")

# Rooms from the top floor down. A module belongs to the room with the longest name that begins its own;
# it may import from its own room and from any below.
FLOORS = (
    "benchmarks",
    "cli",
    "zoo.training",
    "zoo",
    "invariance",
    "invariance.runs",
    "invariance.comparing",
    "invariance.explaining",
    "invariance.changes",
    "invariance.probing.protocol",
    "invariance.probing.quality",
    "invariance.probing.tasks",
    "invariance.probing",
    "invariance.probing.observers",
    "invariance.reporting",
    "invariance.audit",
    "invariance.bench",
    "invariance.fitting",
    "invariance.sampling",
    "invariance.refinement",
    "invariance.networks",
    "invariance.reading",
    "invariance.data",
    "invariance.data.phantoms",
    "invariance.data.simulation",
    "invariance.data.io",
    "invariance.representation",
    "invariance.infra",
    "invariance.presets",
    "testing",
    "adapters",
    "adapters.loading",
    "adapters.compare",
    "adapters.onnx",
    "adapters.onnx.twin",
    "adapters.onnx.running",
    "adapters.onnx.naming",
    "adapters.onnx.graph",
    "adapters.pytorch",
    "adapters.base",
    "adapters.output_kind",
    "adapters.calibration",
    "adapters.geometry",
    "adapters.centring",
    "adapters.tiles",
    "adapters.arrays",
    "adapters.names",
    "adapters.places",
    "adapters.intensity",
    "adapters._types",
    "adapters.errors",
)
# What goes down the floors and is forbidden all the same: each package stands without these.
APART = (
    ("invariance", "zoo"),
    ("zoo", "invariance.probing"),
    ("zoo", "invariance.explaining"),
    ("zoo", "invariance.fitting"),
    ("zoo", "invariance.networks"),
)


def _within(name, room):
    return name == room or name.startswith(f"{room}.")


def room_of(module):
    """The room with the longest name that begins a module's."""
    return max((room for room in FLOORS if _within(module, room)), key=len)


def _imported(tree, module, is_package):
    """Absolute names that a module imports, at whatever depth of its code, also by a string."""
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["ctinv", *here][: len(here) + 2 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
                yield str(node.args[0].value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "import" in node.value:
            # Code inside a string, to be run by another process.
            try:
                inner = ast.parse(node.value)
            except (SyntaxError, ValueError):
                continue
            yield from _imported(inner, module, is_package)


def imports(root):
    """Module to the modules of the project that it imports, all without the leading ``ctinv.``."""
    files = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    graph = {module: set() for module in files}
    for module, file in files.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name in _imported(tree, module, file.name == "__init__.py"):
            if not name.startswith("ctinv."):
                continue
            name = name.removeprefix("ctinv.")
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name and name != module:
                graph[module].add(name)
    return graph


def violations(graph):
    """Every import that climbs or joins what stands apart, as text."""
    wrong = []
    for module, targets in sorted(graph.items()):
        for target in sorted(targets):
            climbs = FLOORS.index(room_of(target)) < FLOORS.index(room_of(module))
            if climbs or any(_within(module, a) and _within(target, b) for a, b in APART):
                wrong.append(f"{module} imports {target}")
    return wrong


def cycle(graph):
    """The modules of one circle of imports; empty where there is none."""
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_import_climbs():
    assert violations(imports(ROOT)) == []


def test_no_imports_go_round_in_circles():
    assert cycle(imports(ROOT)) == []


def test_every_package_has_a_floor():
    packages = {
        ".".join(init.parent.relative_to(ROOT).parts)
        for top in PACKAGES
        for init in (ROOT / top).rglob("__init__.py")
    }
    packages -= {"benchmarks.truth_battery", "benchmarks.endurance"}
    assert {room_of(package) for package in packages} >= packages


def planted(tmp_path, files):
    for name, text in files.items():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return imports(tmp_path)


@pytest.mark.parametrize(
    ("file", "line", "target"),
    [
        ("adapters/a.py", "from ctinv.invariance import data", "invariance"),
        ("adapters/a.py", "def f():\n    import ctinv.zoo", "zoo"),
        ("adapters/__init__.py", "from ..cli import app", "cli"),
        ("invariance/audit/b.py", "from ...zoo.registry import find", "zoo"),
        ("invariance/b.py", "import importlib\nimportlib.import_module('ctinv.cli')", "cli"),
        ("invariance/bench/b.py", "CODE = 'import sys\\nfrom ctinv.cli import main'", "cli"),
        ("invariance/infra/c.py", "from ctinv.invariance.data.io import read", "invariance.data.io"),
        ("invariance/data/io/c.py", "from ctinv.invariance.data import read", "invariance.data"),
        ("zoo/training/c.py", "from ctinv.invariance.fitting import fit_flow", "invariance.fitting"),
        ("adapters/pytorch/c.py", "from ctinv.adapters.onnx import graph", "adapters.onnx"),
    ],
)
def test_a_climbing_import_is_found(tmp_path, file, line, target):
    module = ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")
    there = {"adapters", "zoo", "invariance", "cli", target}
    graph = planted(tmp_path, {f"{name.replace('.', '/')}/__init__.py": "" for name in there} | {file: line})
    assert violations(graph) == [f"{module} imports {target}"]


@pytest.mark.parametrize("lazy", ["from ctinv.invariance.data.a import A", "def f():\n    from .a import A"])
def test_a_circle_is_found(tmp_path, lazy):
    graph = planted(
        tmp_path,
        {
            "invariance/data/__init__.py": "",
            "invariance/data/a.py": "from .b import B",
            "invariance/data/b.py": "from .c import C",
            "invariance/data/c.py": lazy,
        },
    )
    assert set(cycle(graph)) == {"invariance.data.a", "invariance.data.b", "invariance.data.c"}
    assert violations(graph) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("invariance/audit/b.py", "from ctinv.adapters.errors import CtinvError\nfrom .c import d"),
        ("invariance/data/b.py", "from ctinv.invariance.infra.files import write_files"),
        ("zoo/training/c.py", "from ctinv.invariance.data import read"),
        ("cli/d.py", "from ctinv import adapters, invariance, zoo"),
    ],
)
def test_an_import_that_goes_down_is_let_through(tmp_path, file, line):
    there = ("adapters", "zoo", "invariance", "invariance/audit", "invariance/data", "invariance/infra")
    graph = planted(tmp_path, {f"{name}/__init__.py": "" for name in there} | {file: line})
    assert violations(graph) == []
