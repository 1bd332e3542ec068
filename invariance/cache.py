"""Where fits are kept, so that the same analysis never fits twice."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctinv.adapters.errors import CtinvError

__all__ = ["cache_root", "content_key", "publish"]


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


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside ``folder`` and move it there whole.

    Raises:
        CtinvError: The place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:16]}-", dir=folder.parent))
    except OSError as error:
        raise CtinvError(f"{folder.parent} cannot be written ({error.strerror}); choose another place") from error
    try:
        write(temporary)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
