"""Pages of the reference that are made from the source: errors, and cards of trained weights."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Message", "errors_page", "messages", "setup"]

ROOT = Path(__file__).parents[1]
FOLDERS = ("adapters", "invariance", "zoo", "cli", "testing")
# What users cause: these and no others end the command with exit code 2.
KINDS = {
    "ModelError": "The model cannot be loaded or run",
    "UnsupportedModelError": "The model's layers cannot be observed truthfully",
    "RowsError": "A layer gives several rows for each image",
    "LayerError": "The layer's name",
    "AmbiguousLayerError": "Several layers answer to the name",
    "IntensityError": "The model's units",
    "ImageError": "The image, or the data",
    "DeviceError": "The device",
    "CtinvError": "Everything else",
    "BadParameter": "An option of the command line",
}


_PLAIN = ("self", "join", "str", "len")


@dataclass(frozen=True)
class Message:
    """One place of the source that refuses what a user gave.

    Arguments:
        kind: The error's class.
        module: The module that raises it.
        cause: What is wrong; what varies stands in angle brackets.
        mend: What to do.
        key: The module's file and the start of the message: what ``mends.toml`` names it by.
    """

    kind: str
    module: str
    cause: str
    mend: str
    key: str


def messages() -> list[Message]:
    """Every refusal in the source, in the order of files and lines."""
    mends = tomllib.loads((ROOT / "docs" / "mends.toml").read_text(encoding="utf-8"))
    return [m for folder in FOLDERS for m in _of_folder(ROOT / folder, mends)]


def _of_folder(folder: Path, mends: dict[str, str]) -> Iterator[Message]:
    for file in sorted(folder.rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        module = "ctinv." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            text = _text(node.args[0]) if kind in KINDS else ""
            if not re.search(r"\w{3}", re.sub(r"<[^>]*>", "", text)):
                continue  # a message that was made elsewhere is handed on
            cause, mark, mend = text.rpartition("; ")
            key = f"{name}: {text[:40]}"
            yield Message(kind, module, cause if mark else text, mends.get(key, mend if mark else ""), key)


def _text(node: ast.expr) -> str:
    """A message with what varies in angle brackets; empty where it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return f"<{_name(node.value)}>"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return ""


def _name(node: ast.expr) -> str:
    """A short name for what varies: the last word of the expression that gives it."""
    words = [
        w for w in re.findall(r"[A-Za-z]{3,}", ast.unparse(node)) if w not in ("self", "join", "str", "len")
    ]
    return (words[-1] if words else "value").lower()


def errors_page() -> str:
    """A table for each class of errors, as Markdown."""
    parts = []
    every = messages()
    for kind, title in KINDS.items():
        rows = {(m.cause, m.mend, m.module) for m in every if m.kind == kind}
        if not rows:
            continue
        heading = f"## {title} (`{kind}`)" if kind != "BadParameter" else f"## {title}"
        parts += [heading, "", "| message | what to do | raised in |", "|---|---|---|"]
        parts += [f"| {_cell(c)} | {_cell(m)} | `{where}` |" for c, m, where in sorted(rows)]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    for sign in ("\\", "|", "<", ">", "*", "_", "`", "[", "]", "$"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _write(path: Path, text: str) -> None:
    """Write only what differs, so that Sphinx reads no page twice."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _generate(_: Any) -> None:
    folder = ROOT / "docs" / "_generated"
    folder.mkdir(exist_ok=True)
    _write(folder / "errors.md", errors_page())
    cards = [*sorted((ROOT / "zoo" / "cards").glob("*.md")), ROOT / "invariance" / "weights" / "README.md"]
    text = "\n\n".join(re.sub(r"^#", "##", c.read_text(encoding="utf-8"), flags=re.MULTILINE) for c in cards)
    _write(folder / "cards.md", text)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx: the pages are made before any is read."""
    app.connect("builder-inited", _generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
