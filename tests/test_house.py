"""The house files agree with each other and with the package."""

import ast
import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("adapters", "zoo", "invariance", "cli", "testing")


def _read(name):
    return (ROOT / name).read_text(encoding="utf-8")


PROJECT = tomllib.loads(_read("pyproject.toml"))
PINS = dict(line.split("==") for line in _read("constraints.txt").split() if "==" in line)


def _sources():
    return sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def _tests():
    return sorted((ROOT / "tests").rglob("*.py"))


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_on_disk_is_shipped():
    on_disk = {
        ".".join(["ctinv", *init.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == on_disk


def test_installed_version_is_the_projects():
    assert version("ctinv") == PROJECT["project"]["version"]


def test_command_is_installed():
    (command,) = [e for e in entry_points(group="console_scripts") if e.name == "ctinv"]
    assert callable(command.load())


def test_every_dependency_has_a_tested_version():
    named = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    wanted = {_normal(re.match(r"[\w.-]+", line).group()) for line in named}
    assert wanted <= {_normal(name) for name in PINS}


def test_constraints_hold_on_every_platform():
    assert not [name for name in PINS if "nvidia" in name or "cuda" in name or name == "triton"]
    assert not [pin for pin in PINS.values() if "+" in pin]
    assert PINS["onnxruntime"] == PINS["onnxruntime-gpu"]


def test_pre_commit_uses_the_tested_ruff():
    assert set(re.findall(r"ruff==([\d.]+)", _read(".pre-commit-config.yaml"))) == {PINS["ruff"]}


def test_readme_is_short():
    assert len(_read("README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_commands_in_the_prose_exist(page):
    targets = set(re.findall(r"^(\w+):", _read("Makefile"), re.MULTILINE))
    used = set(re.findall(r"^ {4}make (\w+)|`make (\w+)`", _read(page), re.MULTILINE))
    assert used
    assert {a or b for a, b in used} <= targets


def test_ci_runs_the_command_of_the_readme():
    assert "make --no-print-directory test" in _read(".ci/run")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_links_in_the_prose_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", _read(page)):
            assert (ROOT / target).exists(), f"{page} links to {target}"


def test_readme_shows_only_commands_that_exist():
    from ctinv.cli import cli

    for line in re.findall(r"^ {4}ctinv (.+)$", _read("README.md"), re.MULTILINE):
        name, *rest = line.split()
        command = cli.get_command(None, name)
        assert command is not None, line
        options = {opt for parameter in command.params for opt in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, line


def test_readme_example_runs(monkeypatch, tmp_path, capsys):
    """As written, except that nothing is fitted: the fit's result is a stand-in."""
    import numpy as np
    from ctinv import invariance

    class Explainer:
        def explain(self, image, *, seed):
            x = np.asarray(image.hu)
            return invariance.Explanation(
                x=x, denoised=x, reconstruction=x, samples=x[None], mean=x, std=np.full_like(x, 12.25)
            )

    def fit(denoiser, layer, *, preset, seed):
        denoiser.resolve(layer)
        return Explainer()

    monkeypatch.setattr(invariance, "fit", fit, raising=False)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", _read("README.md"), re.DOTALL)
    variables = {}
    exec(compile(example, "README.md", "exec"), variables)
    assert variables["z"].shape == (1, 32, 128, 128)
    assert "blind to 12.2 HU on average" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_licence_is_named_alike():
    assert _read("LICENSE").startswith("MIT License")
    assert PROJECT["project"]["license"] == "MIT"


@pytest.mark.parametrize("file", _sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_source_file_is_short_and_described(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert text.startswith('"""') or not text


def _long_functions(text, limit=60):
    """Names of functions of more lines than that; their docstrings do not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = 0 if ast.get_docstring(node) is None else first.end_lineno - first.lineno + 1
            if node.end_lineno - node.lineno + 1 - told > limit:
                yield node.name


@pytest.mark.parametrize("file", _sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_function_is_longer_than_a_page(file):
    assert list(_long_functions(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("lines", "told", "long"), [(59, 0, []), (60, 0, ["f"]), (58, 40, []), (60, 40, ["f"])]
)
def test_length_is_counted_without_the_docstring(lines, told, long):
    words = ['    """One', *["    more"] * (told - 2), '    """'] if told else []
    assert list(_long_functions("\n".join(["def f():", *words, *["    pass"] * lines]))) == long


def test_the_walks_pass_files_that_exist():
    (walks,) = re.findall(r"Two walks.*?Records \(", _read("CONTRIBUTING.md"), re.DOTALL)
    folders = (ROOT, ROOT / "invariance", ROOT / "adapters")
    named = re.findall(r"[\w/]+/\w+\.py", walks)
    assert len(named) > 15
    assert [name for name in named if not any((folder / name).is_file() for folder in folders)] == []


@pytest.mark.parametrize("file", _tests(), ids=lambda file: str(file.relative_to(ROOT)))
def test_test_file_is_short_and_described(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert text.startswith('"""')


def test_folders_of_tests_mirror_the_rooms():
    apart = (Path(), Path("docs"), Path("browser"), Path("gpu"))
    for folder in (file.parent.relative_to(ROOT / "tests") for file in _tests()):
        assert folder in apart or (ROOT / folder / "__init__.py").exists(), folder
