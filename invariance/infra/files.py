"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ctinv.adapters.errors import CtinvError

__all__ = ["check_writable", "write_files"]


def _refusal(folder: Path, error: OSError) -> CtinvError:
    reason = error.strerror or type(error).__name__
    return CtinvError(f"cannot write into {folder}: {reason.lower()}; name another folder")


def check_writable(folder: str | Path) -> None:
    """Make sure that a folder can be written, or made, without leaving a trace.

    Raises:
        CtinvError: The folder cannot be written; the message names it.
    """
    wanted = place = Path(folder)
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(0, f"{place} is a file, not a folder")
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _refusal(wanted, error) from error


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write several files into one folder, each in one stroke.

    Everything is first written to hidden temporary files beside its final place; only when all are
    complete are they renamed, in the order given. An interruption leaves no partial file behind.

    Arguments:
        folder: Where to write; made with its parents where it does not exist.
        contents: File names and what they hold.

    Returns:
        The final path of each file.

    Raises:
        CtinvError: The folder cannot be written.
    """
    folder = Path(folder)
    waiting: list[tuple[Path, Path]] = []
    paths = {name: folder / name for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            temporary = folder / f".{name}.{os.getpid()}.part"
            waiting.append((temporary, paths[name]))
            temporary.write_bytes(content)
        for source, target in waiting:
            os.replace(source, target)
    except OSError as error:
        raise _refusal(folder, error) from error
    finally:
        for source, _ in waiting:
            source.unlink(missing_ok=True)
    return paths
