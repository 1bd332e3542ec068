"""Where a fit stands, kept on disk so that it goes on after an interruption."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .cache import keep_private
from .distributed import World
from .files import replacing
from .store import without_cache

__all__ = ["Checkpoint", "read_state", "write_state"]

_FORMAT = 1
_HEADER = "ctinv"
_KEPT = 12  # checkpoints of fits that were given up
_STALE = 600.0  # seconds after which an unfinished file has no owner any more


def write_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain facts as one safetensors file; it appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as draft:
        # Not by the library's own writer: what that leaves when it is killed has names that nobody knows.
        content = save(plain, metadata={_HEADER: json.dumps(dict(facts))})
        with draft.open("wb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())


def read_state(raw: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts from the bytes of a file that :func:`write_state` wrote.

    Raises:
        ValueError: They are damaged, or of another file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        # The file starts with the length of its header, 8 bytes, and the header as JSON.
        stored = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        return load(raw), dict(json.loads(stored[_HEADER]))
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error


class Checkpoint:
    """The latest state of one fit: a safetensors file with JSON in its header.

    The file is replaced in one stroke: whenever the process is killed, the file is whole.

    Arguments:
        folder: Where checkpoints lie.
        key: What decides the fit (see :func:`ctinv.invariance.infra.cache.content_key`).

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = Checkpoint(Path(folder), "key")
        ...     checkpoint.save({"x": torch.ones(2)}, {"step": 3})
        ...     tensors, facts = checkpoint.load()
        >>> tensors["x"].tolist(), facts
        ([1.0, 1.0], {'step': 3})
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.safetensors"
        self._key = key
        self.notices: list[str] = []

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the state; where the disk fails, the fit goes on without, told by a ``CacheWarning``."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self._tidy()
            write_state(self.path, tensors, {"format": _FORMAT, "key": self._key, "facts": dict(facts)})
            keep_private(self.path)
        except OSError as error:
            without_cache(error)

    def load(self, world: World = World()) -> tuple[dict[str, Tensor], dict[str, Any]] | None:  # noqa: B008
        """The state, or None where there is none that can be used; :attr:`notices` says why.

        Arguments:
            world: The processes; all go on from what process 0 finds.
        """
        raw = world.shared_bytes(self._raw() if world.leads else b"")
        if not raw:
            return None
        try:
            tensors, header = read_state(raw)
            if (header["format"], header["key"]) == (_FORMAT, self._key):
                return tensors, dict(header["facts"])
            self.ignore("it belongs to another fit or version")
        except (KeyError, TypeError, ValueError) as error:
            self.ignore(" ".join(str(error).split()) or type(error).__name__)
        return None

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self.ignore(error.strerror or type(error).__name__)
            return b""

    def ignore(self, reason: str) -> None:
        """Note that the state is of no use."""
        self.notices.append(f"the checkpoint {self.path} is ignored ({reason}); the fit starts anew")

    def remove(self) -> None:
        """Take the file away, and what killed processes left of it."""
        with contextlib.suppress(OSError):  # it does no harm where it stays
            self.path.unlink(missing_ok=True)
            for part in self.path.parent.glob(f".{self.path.name}.*.part"):
                part.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Drop all but the newest checkpoints of other fits, and files nobody finishes."""
        folder = self.path.parent
        now = time.time()
        for part in folder.glob(".*.part"):
            if now - _written(part) > _STALE:
                part.unlink(missing_ok=True)
        for old in sorted(folder.glob("*.safetensors"), key=_written, reverse=True)[_KEPT - 1 :]:
            old.unlink(missing_ok=True)


def _written(path: Path) -> float:
    """When a file was written; 0 where it is gone by now."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
