"""One run at a time writes a folder, or one shard of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctinv.adapters.errors import CtinvError

from .cases import Shard

__all__ = ["alone_in", "in_turn"]


@contextmanager
def alone_in(out: Path, shard: Shard) -> Iterator[None]:
    """No second run, or second process with this shard, works in a folder while the body runs.

    A process that is killed lets go of it. Where the file system knows no locks, nobody is kept out.

    Raises:
        CtinvError: Another one is at work there, or the folder cannot be written.
    """
    mark = "" if shard.alone else f"-{shard.number}-of-{shard.count}"
    with _locked(out, f".run{mark}.lock", wait=False):
        yield


@contextmanager
def in_turn(out: Path) -> Iterator[None]:
    """Shards that end at the same time sum up one after another."""
    with _locked(out, ".gather.lock", wait=True):
        yield


@contextmanager
def _locked(out: Path, name: str, wait: bool) -> Iterator[None]:
    from filelock import FileLock, Timeout

    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock = FileLock(out / name, timeout=-1 if wait else 0)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise CtinvError(
            f"another run is writing into {out}; wait for it, name another folder, or divide the work "
            "with --shard i/N"
        ) from None
    except NotImplementedError:
        yield
        return
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CtinvError(f"cannot write into {out}: {reason}; name another folder") from error
    try:
        yield
    finally:
        # Whoever waits for the name while it goes finds that its file is no longer there, and tries again.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        _leave_nothing(made)


def _leave_nothing(made: list[Path]) -> None:
    """Remove the folders that were made for the lock, where nothing came into them."""
    for folder in made:
        try:
            os.rmdir(folder)
        except OSError:
            return
