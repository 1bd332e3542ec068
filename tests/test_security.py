"""Nothing that comes from a file is run: no source unpickles, evaluates or loads code from data."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("adapters", "zoo", "invariance", "cli", "testing")
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNNERS = {"eval", "exec", "compile", "__import__"}

# Names of the pickle module that may be used: errors to catch, never what reads.
HARMLESS = {"PickleError", "UnpicklingError"}


def dangers(tree):
    """What a source does that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name not in HARMLESS)
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in PICKLERS - {"pickle"})
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle":
            yield from {node.attr} - HARMLESS
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = getattr(getattr(node.func, "value", None), "id", "")
        given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if isinstance(node.func, ast.Name) and name in RUNNERS:
            yield name
        if (owner, name) == ("torch", "load") and given.get("weights_only") is not True:
            yield "torch.load without weights_only=True"
        if (owner, name) == ("np", "load") and given.get("allow_pickle") is not False:
            yield "np.load without allow_pickle=False"
        if given.get("allow_pickle") is True or given.get("weights_only") is False:
            yield "pickles allowed"
        if name in ("register_custom_ops_library", "extractall", "unpack_archive"):
            yield name
        if owner == "yaml" and name in ("load", "unsafe_load", "full_load"):
            yield f"yaml.{name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_source_runs_what_a_file_holds(folder):
    found = {
        f"{file.relative_to(ROOT)}: {danger}"
        for file in (ROOT / folder).rglob("*.py")
        for danger in dangers(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == set()


@pytest.mark.parametrize(
    "code",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import load",
        "import joblib",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import numpy as np\nnp.load('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "eval('1')",
        "exec(text)",
        "import yaml\nyaml.load(text)",
        "archive.extractall()",
        "options.register_custom_ops_library('x.so')",
    ],
)
def test_what_runs_code_is_found(code):
    assert list(dangers(ast.parse(code)))


def test_pages_escape_what_comes_from_files():
    from ctinv.invariance.reporting.overview import Case, overview_html

    html = overview_html([Case("<script>a</script>", '"><img src=x>', "<b>", verdict="</p><i>")])
    for wrong in ("<script>a", "<img src=x>", "<b>", "</p><i>"):
        assert wrong not in html
