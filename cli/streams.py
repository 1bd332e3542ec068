"""Standard output and error that may be closed, or left by their reader, while the command works."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["unbroken_streams"]


class _Unbroken:
    """A stream that takes what is written even after its reader has left, as ``head`` does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbroken_streams() -> Iterator[None]:
    """While the body runs, and when the process ends, nothing fails because nobody reads what is printed.

    A stream that was closed before the start leads nowhere. A disk that is full is told by the ``OSError``.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (until the end)
    streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
    out, error = map(_Unbroken, streams)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):  # type: ignore[type-var]
            yield
    finally:
        for stream in streams:
            _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Keep what could not be written from failing once more when the process flushes at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
