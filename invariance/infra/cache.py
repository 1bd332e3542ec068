"""Where fits are kept, so that the same analysis never fits twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ctinv.adapters.errors import CtinvError

__all__ = ["cache_root", "content_key", "image_digest", "keep_newest", "publish"]


def cache_root() -> Path:
    """``CTINV_CACHE`` where set, else the platform's user cache folder for ctinv."""
    given = os.environ.get("CTINV_CACHE")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("ctinv"))


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


def keep_newest(folder: Path, count: int) -> None:
    """Remove all but the ``count`` sub-folders used last."""
    entries = sorted(folder.iterdir(), key=lambda e: e.stat().st_mtime, reverse=True)
    for entry in entries[count:]:
        shutil.rmtree(entry, ignore_errors=True)


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside ``folder`` and move it there whole.

    Raises:
        CtinvError: The place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}-", dir=folder.parent))
    except OSError as error:
        raise CtinvError(
            f"{folder.parent} cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        write(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
