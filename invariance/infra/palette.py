"""Colours and letters that figures share."""

from __future__ import annotations

from typing import Any

__all__ = ["COLOURS", "INK", "PLAIN", "QUIET"]

INK, QUIET = "#1a1d21", "#5a6270"
COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be185d")
"""One for each denoiser."""

PLAIN: dict[str, Any] = {"color": INK, "fontfamily": "DejaVu Sans", "parse_math": False}
"""How titles are written: names of models may hold a dollar sign."""
