"""The audit: how far the images of an explanation can be trusted."""

from .leakage import leakage, matched_control
from .summary import audit

__all__ = ["audit", "leakage", "matched_control"]
