"""What ``--data`` names: a folder, or one for each dose, and how its values become HU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctinv.adapters.errors import ImageError

__all__ = ["Sources", "for_data", "mends_for_data", "sources_of"]

_FORM = "FOLDER,scale=S,offset=K"


@dataclass(frozen=True)
class Sources:
    """What ``--data`` names: one folder, or one for each dose.

    Arguments:
        folder: A folder or file; None where the doses are named.
        low: Folder of the low dose, or None.
        high: Folder of the high dose, or None.
        offset: What must be taken off all values to come to HU; None where nobody said so.
        scale: What the values must be multiplied by before; None where nobody said so.
    """

    folder: Path | None
    low: Path | None = None
    high: Path | None = None
    offset: float | None = None
    scale: float | None = None


def sources_of(spec: str | Path) -> Sources:
    """Take ``FOLDER`` or ``low=FOLDER,high=FOLDER`` apart, either with ``,scale=S,offset=K`` behind.

    Raises:
        ImageError: A folder is not there or named twice, or a value is no number.

    Example:
        >>> sources_of(".,scale=4096,offset=1024").scale
        4096.0
    """
    if Path(spec).exists():
        return Sources(Path(spec))
    first, *parts = re.split(r"(?:^|,)\s*(low|high|scale|offset)=", str(spec))
    named = dict(zip(parts[::2], (v.strip() for v in parts[1::2]), strict=True))
    folders = {dose: Path(named[dose]) for dose in ("low", "high") if dose in named}
    if len(named) != len(parts) // 2 or bool(first) == bool(folders) or (folders and "high" not in folders):
        raise ImageError(
            f"{spec} must name one folder, or each dose once: low=FOLDER,high=FOLDER, or high=FOLDER alone; "
            "behind it may stand scale=S,offset=K"
        )
    for path in folders.values() if folders else [Path(first)]:
        if not path.exists():
            raise ImageError(
                f"{path} does not exist; give a folder of CT slices, low=FOLDER,high=FOLDER, or 'phantom'"
            )
    numbers = {key: _number(key, named[key]) for key in ("offset", "scale") if key in named}
    return Sources(Path(first) if first else None, folders.get("low"), folders.get("high"), **numbers)


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ImageError(f"{key}={text} is no number; give {_FORM}") from None


def for_data(reason: str) -> str:
    """A reason that names ``--offset``, with how the same is said of ``--data``."""
    told = "--offset" not in reason or _FORM in reason
    return reason if told else f"{reason}; for --data as {_FORM}"


@contextmanager
def mends_for_data() -> Iterator[None]:
    """Give refusals of values the form of the mend that ``--data`` has."""
    try:
        yield
    except ImageError as error:
        told = for_data(str(error))
        if told == str(error):
            raise
        raise ImageError(told) from error
