"""What the library warns of; the command line turns it into notes."""

from __future__ import annotations

__all__ = ["CacheWarning"]


class CacheWarning(UserWarning):
    """The cache could not be used as it should; the work goes on without."""
