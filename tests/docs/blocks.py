"""The code blocks and commands of a page, in the order in which a reader meets them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\s*$")
_SKIP = re.compile(r"^<!-- not run: (.+) -->$")
# What is run by the steps of CI themselves, or changes the environment.
ELSEWHERE = {
    "pip",
    "pipx",
    "make",
    "ruff",
    "torchrun",
    "python",
    "sbatch",
    ".venv/bin/python",
    ".venv/bin/ruff",
}


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Arguments:
        kind: ``python``, ``sh``, ``console`` or another language; empty for none.
        text: What it holds.
        line: Where it begins.
        skip: Why it is not run; empty where it is.
    """

    kind: str
    text: str
    line: int
    skip: str = ""


def blocks(page: Path) -> list[Block]:
    """Every fenced block, and every indented one outside lists, whose kind is told from its words."""
    found, skip = [], ""
    lines = page.read_text(encoding="utf-8").splitlines()
    row = 0
    while row < len(lines):
        fence, skipped = _FENCE.match(lines[row]), _SKIP.match(lines[row])
        if skipped:
            skip = skipped[1]
        elif fence or lines[row].startswith("```"):
            end = lines.index("```", row + 1)
            if fence:
                found.append(Block(fence[1], "\n".join(lines[row + 1 : end]) + "\n", row + 1, skip))
            row, skip = end, ""
        elif lines[row].startswith("    ") and not lines[row - 1].strip() and not _in_list(lines[:row]):
            end = row
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            text = "\n".join(line[4:] for line in lines[row:end]).rstrip() + "\n"
            found.append(Block(_kind(text), text, row + 1, skip))
            row, skip = end - 1, ""
        row += 1
    return found


def _in_list(above: list[str]) -> bool:
    """Whether an indented line belongs to an item of a list."""
    for line in reversed(above):
        if line and not line.startswith(" "):
            return line.startswith(("- ", "* ", "1. ", "2. "))
    return False


def _kind(text: str) -> str:
    word = text.split(maxsplit=1)[0]
    if word in ELSEWHERE | {"ctinv"}:
        return "sh"
    return "text" if word.startswith("[") else "python"


def commands(text: str) -> list[list[str]]:
    """The commands of a block of shell lines, without comments; a backslash joins lines."""
    joined = text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def sessions(text: str) -> list[tuple[list[str], str]]:
    """The commands of a console block, each with the output that is shown below it."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [(shlex.split(part.partition("\n")[0]), part.partition("\n")[2]) for part in parts]
