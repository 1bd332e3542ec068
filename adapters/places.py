"""Where things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """``CTINV_CACHE`` where set, else the platform's user cache folder for ctinv."""
    given = os.environ.get("CTINV_CACHE")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("ctinv"))
