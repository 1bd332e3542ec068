"""What a case left on disk: its result, or the reason why there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctinv.invariance.infra.files import remove_files, write_files
from ctinv.invariance.reporting.result import SCHEMA_VERSION

__all__ = [
    "ANSWERS",
    "ERROR",
    "FILES",
    "FILES_WITHOUT_REPORT",
    "RESULT",
    "Failure",
    "clear_failure",
    "done",
    "outcome",
    "record_failure",
    "without_paths",
]

RESULT, ERROR = "result.json", "error.json"
ANSWERS = ("swap", "attack")  # folders within a case's own
FILES = ("arrays.npz", "figure.png", "report.html", RESULT)
"""What a finished case consists of; the result is written last."""

FILES_WITHOUT_REPORT = ("arrays.npz", RESULT)
"""The same where no figure and no page were asked for."""

_LONGEST = 500  # characters of a reason


@dataclass(frozen=True)
class Failure:
    """A case that came to nothing.

    Arguments:
        model: The model's name.
        model_hash: SHA-256 of what decides its numbers.
        layer: The layer's name.
        source: What the slice is called.
        case: The key of the case.
        error: The reason, on one line and without any path of the input.
        kind: Name of the exception.
    """

    model: str
    model_hash: str
    layer: str
    source: str
    case: str
    error: str
    kind: str

    @property
    def record(self) -> dict[str, Any]:
        """What ``error.json`` holds."""
        return {"schema_version": SCHEMA_VERSION, **self.__dict__}


def record_failure(folder: Path, failure: Failure) -> None:
    """Write ``error.json``; a result of an earlier question goes.

    Raises:
        CtinvError: The folder cannot be written.
    """
    text = json.dumps(failure.record, indent=2, ensure_ascii=False) + "\n"
    write_files(folder, {ERROR: text.encode()})
    remove_files(folder, reversed(FILES))


def without_paths(error: BaseException, *places: Path | None, name: str) -> str:
    """An error's message on one line, with a slice's name where its files' paths stood.

    Arguments:
        error: What went wrong.
        places: Paths that must not be written.
        name: What to call them.

    Example:
        >>> without_paths(ValueError("in/Doe/1.dcm: bad, in in/Doe"), Path("in/Doe/1.dcm"), name="s1")
        's1: bad, in s1'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    for place in places:
        if place is None:
            continue
        whole = place.absolute()
        # What lies beside the slice, or elsewhere below one of its folders, may tell as much.
        for part in (place, whole, place.parent, *whole.parents, place.name):
            if str(part) not in ("", ".", "/"):
                below = "" if part == place.name else r"(?:/[^\s:;,'\"]*)?"
                text = re.sub(rf"(?<![\w/-]){re.escape(str(part))}{below}(?![\w-])", name, text)
    return text[:_LONGEST]


def done(folder: Path, key: str, files: Collection[str] = FILES) -> bool:
    """Whether a case is finished: all its files are there, and they answer this very question."""
    known = outcome(folder)
    return (
        known is not None
        and known.get("case") == key
        and "error" not in known
        and all((folder / name).is_file() for name in files)
    )


def outcome(folder: Path) -> Mapping[str, Any] | None:
    """What ``result.json`` or else ``error.json`` holds; None where there is neither, or nothing readable."""
    for name in (RESULT, ERROR):
        try:
            record = json.loads((folder / name).read_bytes())
            if isinstance(record, dict) and int(record["schema_version"]) <= SCHEMA_VERSION:
                return record
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def clear_failure(folder: Path) -> None:
    """Take the record of an earlier failure away."""
    remove_files(folder, (ERROR,))
