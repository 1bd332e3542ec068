"""HTML pages that hold their pictures and style, load nothing and run no scripts."""

from __future__ import annotations

import base64
import math
from numbers import Integral
from pathlib import Path
from typing import Any

__all__ = ["number", "page"]

_TEMPLATES = Path(__file__).parents[1] / "templates"


def page(name: str, **contents: Any) -> str:
    """Fill a template that extends ``page.html.j2``.

    Whatever it is given is escaped; it knows the filters ``number`` and, for a PNG file's bytes, ``png``.

    Arguments:
        name: File name, such as ``report.html.j2``.
        contents: What the template asks for; all of it must be there.
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
    environment.filters["png"] = lambda raw: "data:image/png;base64," + base64.b64encode(raw).decode("ascii")
    return environment.get_template(name).render(**contents)


def number(value: float) -> str:
    """A number with three significant digits, without exponents where they can be avoided.

    Example:
        >>> number(0.01234), number(1234.5), number(12), number(12.0), number(3e-7)
        ('0.0123', '1234', '12', '12.0', '3.00e-07')
    """
    size = abs(value)
    if isinstance(value, Integral) or size == 0:
        return f"{int(value)}"
    if size < 1e-4 or size >= 1e6:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
