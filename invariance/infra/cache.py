"""Where fits are kept, so that the same analysis never fits twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters.errors import CtinvError
from ctinv.adapters.places import cache_root
from safetensors import SafetensorError

from .files import replacing

__all__ = ["cache_root", "content_key", "held", "image_digest", "keep_private", "publish"]


def content_key(**parts: Any) -> str:
    """SHA-256 (hex) of everything that decides a fit, as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def image_digest(images: Iterable[npt.NDArray[Any]]) -> str:
    """SHA-256 (hex) of the shapes and values of images."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(str(image.shape).encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """No other process changes the folders beside this one while the body runs.

    Only for short work, such as reading or moving: others wait. Not to be entered twice.
    """
    from filelock import FileLock

    place = hashlib.sha256(str(folder.parent.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(cache_root() / "locks" / f"{place}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        keep_private(Path(lock.lock_file))
    except OSError:
        # Where nothing can be written, nobody changes anything either.
        yield
        return
    try:
        yield
    finally:
        lock.release()


def keep_private(place: Path) -> None:
    """Let nobody but the user read a place of the cache, what is below it and what leads there.

    What lies outside the cache is left as it is, and so is a root that the user chose: others may use it.
    """
    root = cache_root()
    if root not in place.parents:
        return
    above = [folder for folder in place.parents if root in folder.parents]
    if not os.environ.get("CTINV_CACHE"):
        above.append(root)
    for path in (*above, place, *place.rglob("*")):
        with suppress(FileNotFoundError):  # another process has replaced it
            path.chmod(0o700 if path.is_dir() else 0o600)


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside ``folder`` and move it there whole.

    Raises:
        CtinvError: The place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as end, replacing(folder) as draft:
            draft.mkdir()
            write(draft)
            keep_private(draft)
            end.enter_context(held(folder))
            shutil.rmtree(folder, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CtinvError(f"{folder.parent} cannot be written ({reason}); choose another place") from error
