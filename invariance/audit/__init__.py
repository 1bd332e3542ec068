"""The audit: how far the images of an explanation can be trusted."""

from .leakage import Seen, leakage, matched_control, seen_changes
from .summary import Evidence, audit
from .verdict import Facts, hides, verdict

__all__ = [
    "Evidence",
    "Facts",
    "Seen",
    "audit",
    "hides",
    "leakage",
    "matched_control",
    "seen_changes",
    "verdict",
]
