"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctinv.adapters.errors import CtinvError

__all__ = ["check_writable", "remove_files", "replacing", "write_files"]


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


def remove_files(folder: str | Path, names: Iterable[str]) -> None:
    """Remove files of a folder, in the order given, where they are there.

    Raises:
        CtinvError: One of them cannot be removed.
    """
    for name in names:
        file = Path(folder) / name
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise CtinvError(f"cannot remove {file}: {reason}; name another folder") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden name beside a file or folder; what the body writes there takes its place in one stroke.

    Where the body fails, nothing is left of it and the old one stays. A folder is only replaced where the
    old one is gone or empty.

    Arguments:
        path: The final path; its folder must exist.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def write_files(folder: str | Path, contents: Mapping[str, bytes]) -> dict[str, Path]:
    """Write several files into one folder, each in one stroke.

    Everything is first written to hidden temporary files beside its final place; only when all are
    complete are they renamed, in the order given. An interruption leaves no partial file behind. Of
    several files the last one tells that all are there: an old one goes before the first is renamed, so
    that it never stands beside files of another answer.

    Arguments:
        folder: Where to write; made with its parents where it does not exist.
        contents: File names and what they hold.

    Returns:
        The final path of each file.

    Raises:
        CtinvError: The folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as drafts:
            # What is entered last is renamed first.
            for name in reversed(list(contents)):
                drafts.enter_context(replacing(folder / name)).write_bytes(contents[name])
            if len(contents) > 1:
                (folder / list(contents)[-1]).unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(folder, error) from error
    return {name: folder / name for name in contents}
