"""HTML pages that hold their pictures, style and scripts, and load nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .records import plain

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["link", "number", "page"]

_TEMPLATES = Path(__file__).parents[1] / "templates"


def page(name: str, scripts: Sequence[str] = (), **contents: Any) -> str:
    """Fill a template that extends ``page.html.j2``.

    Whatever it is given is escaped. It knows the filters ``number``; ``png`` and ``webp`` for a picture
    file's bytes; and ``stored`` for what scripts read as JSON. The page's policy allows the scripts named
    here and no others, by their hash, and no request.

    Arguments:
        name: File name, such as ``report.html.j2``.
        scripts: Files in ``templates/js``, in the order in which they run. They share one scope.
        contents: What the template asks for; all of it must be there.
    """
    from markupsafe import Markup

    code = _joined(scripts)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if code else "'none'"
    return (
        _templates()
        .get_template(name)
        .render(
            script=Markup(code),  # ours, see templates/js
            policy="default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
            f"script-src {allowed}; base-uri 'none'; form-action 'none'",
            **contents,
        )
    )


@functools.cache
def _templates() -> Environment:
    """Every template is compiled once: that takes longer than to fill it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["png"] = lambda raw: _data_url("image/png", raw)
    environment.filters["webp"] = lambda raw: _data_url("image/webp", raw)
    environment.filters["stored"] = _stored
    return environment


def _joined(scripts: Sequence[str]) -> str:
    """The scripts as one that leaves no global names behind."""
    if not scripts:
        return ""
    parts = [(_TEMPLATES / "js" / name).read_text(encoding="utf-8") for name in scripts]
    return "\n".join(['(() => {\n"use strict";', *parts, "})();"])


def _data_url(kind: str, raw: bytes) -> str:
    return f"data:{kind};base64," + base64.b64encode(raw).decode("ascii")


def _stored(value: Any) -> Markup:
    """JSON for the inside of a script element, which nothing in it can end."""
    from markupsafe import Markup

    text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def link(path: str | PurePosixPath) -> str:
    """A relative path as a link of a page; whatever its parts are called, it names a file.

    Example:
        >>> link("javascript:1/a b#.html")
        './javascript%3A1/a%20b%23.html'
    """
    return "./" + quote(str(path))


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
