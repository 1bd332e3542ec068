"""Entries of the cache: kept where there is room, checked when read, done without where the disk fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ctinv.adapters.errors import CtinvError
from safetensors import SafetensorError

from .cache import cache_root, held, keep_private, publish
from .notices import CacheWarning
from .sizes import memory_size

__all__ = [
    "SIZE",
    "Entry",
    "cache_limit",
    "clear",
    "entries",
    "fetch",
    "keep",
    "made_once",
    "prune",
    "without_cache",
]

SIZE = "CTINV_CACHE_SIZE"
"""The environment's name for the bytes that the cache may hold, such as 20GB."""

_LIMIT = "10GB"
_SUMS = "sums.json"
_ROOMS = ("explainers", "explanations", "vaes", "phantoms", "checkpoints", "models")
_STALE = 3600.0  # seconds after which an unfinished entry has no owner any more
_CHUNK = 1 << 20

T = TypeVar("T")


def without_cache(error: object) -> None:
    """Tell that the cache is done without; whoever listens says it once.

    Arguments:
        error: Why.
    """
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    warnings.warn(
        f"the cache {cache_root()} cannot be used ({reason or type(error).__name__}); the work goes on "
        "without it: make room there, or set CTINV_CACHE to another folder",
        CacheWarning,
        stacklevel=3,
    )


@dataclass(frozen=True)
class Entry:
    """One thing that the cache holds.

    Arguments:
        path: Where.
        size: Bytes.
        used: When it was used last, seconds since the epoch.
    """

    path: Path
    size: int
    used: float

    @property
    def room(self) -> str:
        """What kind of thing it is, such as ``explainers``."""
        return self.path.parent.name


def keep(folder: Path, write: Callable[[Path], None]) -> None:
    """Put an entry into the cache, with the hashes of its files; then make room where there is too much.

    A disk that is full, gone or read-only is told by a :class:`CacheWarning`; nothing is raised.

    Arguments:
        folder: The entry's place.
        write: Fills a folder.
    """

    def with_sums(draft: Path) -> None:
        write(draft)
        sums = {name: _hash(draft / name) for name in _names(draft)}
        (draft / _SUMS).write_text(json.dumps(sums), encoding="utf-8")

    try:
        publish(folder, with_sums)
        prune(spare=folder)
    except (OSError, CtinvError) as error:
        without_cache(error.__cause__ or error)


def fetch(folder: Path, read: Callable[[Path], T]) -> T | None:
    """What an entry of the cache holds; None where it is not there, or not as it was written.

    A damaged entry is removed and told by a :class:`CacheWarning`.

    Arguments:
        folder: The entry's place.
        read: Reads it.
    """
    try:
        if not folder.is_dir():
            return None
        with held(folder):
            if not (folder / _SUMS).is_file():  # gone while we waited, or of an earlier version
                return None
            if damage := _damage(folder):
                shutil.rmtree(folder, ignore_errors=True)
                without_cache(
                    f"{folder.parent.name}/{folder.name[:12]} is damaged: {damage}; it is made anew"
                )
                return None
            entry = read(folder)
            _touch(folder)
            return entry
    except (OSError, CtinvError, SafetensorError, ValueError, KeyError) as error:
        without_cache(error)
        return None


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)
    except OSError:  # a cache that others filled may be read all the same
        return


def _damage(folder: Path) -> str | None:
    try:
        sums = dict(json.loads((folder / _SUMS).read_text(encoding="utf-8")))
        for name, wanted in sums.items():
            if _hash(folder / name) != wanted:
                return f"{name} has changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, TypeError):
        return f"{_SUMS} is unreadable"
    return None


def _names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cache_limit() -> int:
    """Bytes that the cache may hold: ``CTINV_CACHE_SIZE``, else 10 GB.

    Raises:
        CtinvError: The variable holds no amount.
    """
    return memory_size(os.environ.get(SIZE) or _LIMIT)


def entries() -> list[Entry]:
    """Everything in the cache, the least recently used first."""
    kept = []
    for room in _ROOMS:
        for path in _listed(cache_root() / room):
            if path.name.startswith("."):
                continue
            try:
                used = path.stat().st_mtime
                files = [path, *path.rglob("*")] if path.is_dir() else [path]
                kept.append(Entry(path, sum(f.stat().st_size for f in files if f.is_file()), used))
            except OSError:  # gone by now
                continue
    return sorted(kept, key=lambda entry: entry.used)


def _listed(folder: Path) -> Sequence[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return ()


def prune(limit: int | None = None, *, spare: Path | None = None) -> list[Entry]:
    """Remove what was used longest ago until the rest fits, and drafts that nobody finishes.

    Arguments:
        limit: Bytes; None for :func:`cache_limit`.
        spare: An entry that stays.

    Returns:
        What was removed.
    """
    limit = cache_limit() if limit is None else limit
    _remove_drafts()
    there = entries()
    over = sum(entry.size for entry in there) - limit
    removed = []
    for entry in there:
        if over <= 0:
            break
        if entry.path != spare and _removed(entry.path):
            over -= entry.size
            removed.append(entry)
    return removed


def _remove_drafts() -> None:
    now = time.time()
    for room in _ROOMS:
        for draft in _listed(cache_root() / room):
            if not (draft.name.startswith(".") and draft.name.endswith(".part")):
                continue
            try:
                # The clock may have been turned back since: then it looks younger, and stays a while.
                if now - draft.stat().st_mtime > _STALE:
                    _removed(draft)
            except OSError:
                continue


def _removed(path: Path) -> bool:
    with held(path):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return not path.exists()


def clear() -> list[Entry]:
    """Remove everything that the cache holds; what others are writing stays."""
    return [entry for entry in entries() if _removed(entry.path)]


@contextmanager
def made_once(keys: Sequence[str]) -> Iterator[None]:
    """Of all processes that share the cache, one at a time makes the things of these keys.

    The others wait here, and find them in the cache when they come to look. A process that is killed
    lets go. Where there can be no locks, all go on at once.

    Arguments:
        keys: What is made, see :func:`ctinv.invariance.infra.cache.content_key`.
    """
    from filelock import FileLock

    with ExitStack() as locks:
        try:
            folder = cache_root() / "locks"
            folder.mkdir(parents=True, exist_ok=True)
            for key in sorted(set(keys)):  # in one order, so that nobody waits for another in a circle
                file = folder / f"make-{key[:32]}.lock"
                locks.enter_context(FileLock(file))
                keep_private(file)
        except (OSError, NotImplementedError) as error:
            without_cache(error)
            locks.close()
        yield
