"""Every mend that a message of the adapters names can be followed: in Python, and on the command line."""

import ast
import inspect
import re
from pathlib import Path

import pytest
from ctinv import adapters
from ctinv.adapters.base import Denoiser
from ctinv.cli.layers import layers

ROOT = Path(__file__).parents[2] / "adapters"
OPTIONS = {option for parameter in layers.params for option in parameter.opts}
# Words of Python that only a program written in Python can cause to be told.
IN_PYTHON = {
    "grad": "asked for by programs alone",
    "weights": "part of --model",
    "training": "of the network's own code",
    "units": "metadata of a file",
    "graph": "part of a description",
}


def words(text):
    """Keywords that a text tells its reader to give, as ``channels=``."""
    return set(re.findall(r"(?<![\w.{])([a-z][a-z_]+)=(?!=|VALUE)", text))


def _text(node):
    """A string of the code as its reader sees it; what is filled in stands as a star."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "*" for part in node.values)
    return ""


def messages():
    """File and text of all that adapters raise or announce."""
    for file in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if id(node) not in aside | inner and (text := _text(node)):
                yield file.relative_to(ROOT).as_posix(), text


MENDS = sorted({(file, word) for file, text in messages() for word in words(text)})


def test_messages_are_found():
    named = {word for _, word in MENDS}
    assert {"channels", "output_tensor", "layout", "input_name"} <= named
    assert words("give channels=3, or a.b=1; x == 1 and {y=}") == {"channels"}


@pytest.mark.parametrize(("file", "word"), MENDS)
def test_what_a_message_names_can_be_given(file, word):
    assert f"--{word.replace('_', '-')}" in OPTIONS or word in IN_PYTHON, f"{file} names {word}="
    takers = (adapters.load, adapters.wrap, Denoiser.features, Denoiser.calibrate)
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    known |= set(re.findall(r"``(\w+)``", inspect.getdoc(adapters.load)))
    assert word in known or word in IN_PYTHON, f"{file} names {word}="
