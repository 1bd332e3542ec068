"""The HTML pages' templates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .scores import number

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["template"]

_TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> Template:
    """A template that escapes what it is given and knows the filter ``number``.

    Arguments:
        name: File name, such as ``report.html.j2``.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(name)
