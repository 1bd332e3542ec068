"""Every public name stands in the reference, and every error has a cause and a mend there."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "adapters": "ctinv.adapters",
    "invariance": "ctinv.invariance",
    "data": "ctinv.invariance.data",
    "zoo": "ctinv.zoo",
    "testing": "ctinv.testing",
}
_ENTRY = re.compile(
    r"^\.\. (?:auto)?(?:class|exception|function|data|pydecorator|decorator):: (\w+)", re.MULTILINE
)


@pytest.mark.parametrize(("page", "module"), PAGES.items())
def test_the_reference_holds_every_public_name_once(page, module):
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert sorted(_ENTRY.findall(text)) == sorted(importlib.import_module(module).__all__)


@pytest.fixture(scope="module")
def generated():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        yield importlib.import_module("generated")
    finally:
        sys.path.remove(str(ROOT / "docs"))
        del sys.modules["generated"]


def test_every_error_says_what_to_do(generated):
    """Behind a semicolon in the message itself, else in docs/mends.toml."""
    silent = [message.key for message in generated.messages() if not message.mend]
    assert silent == []


def test_no_mend_is_left_of_a_message_that_has_gone(generated):
    mends = tomllib.loads((ROOT / "docs" / "mends.toml").read_text(encoding="utf-8"))
    assert set(mends) - {message.key for message in generated.messages()} == set()


def test_the_error_page_holds_known_messages(generated):
    page = generated.errors_page()
    assert page.count("\n| ") > 200
    assert "| images must have shape (N, 1, H, W), one grey channel, not \\<shape\\> |" in page
    assert "choose one of: \\<kernels\\>" in page


def test_messages_are_found_wherever_they_are_made(generated, tmp_path, monkeypatch):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "a.py").write_text(
        "def f(x):\n"
        "    raise ModelError(f'{x.name!r} is odd; give ' + 'another')\n"
        "def g(x):\n"
        "    return errors.LayerError('no such layer', 'name')\n"
        "def h(x):\n"
        "    raise ImageError(x)\n"
        "    raise ValueError('not of the user')\n"
    )
    monkeypatch.setattr(generated, "ROOT", tmp_path)
    found = list(generated._of_folder(tmp_path / "adapters", {"adapters/a.py: no such layer": "look again"}))
    assert [(m.kind, m.cause, m.mend) for m in found] == [
        ("ModelError", "<name> is odd", "give another"),
        ("LayerError", "no such layer", "look again"),
    ]
