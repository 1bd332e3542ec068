"""Every public name stands in the reference, and every error has a cause and a mend there."""

import importlib
import re
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
