"""The record of a comparison, as users meet it: it also writes its files and shows itself in notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .files import save
from .page import table_html
from .record import ComparisonResult

__all__ = ["Comparison"]


@dataclass(frozen=True, eq=False)
class Comparison(ComparisonResult):
    """Several analyses set against each other.

    The fields are those of :class:`ctinv.invariance.comparing.record.ComparisonResult`.
    """

    def save(self, out_dir: str | Path) -> dict[str, Path]:
        """Write ``figure.png``, ``images.npz``, ``report.html`` and, last, ``result.json``.

        Arguments:
            out_dir: Folder; made where it does not exist.

        Returns:
            The path of each file by name.

        Raises:
            CtinvError: The folder cannot be written.
        """
        return save(self, out_dir)

    def _repr_html_(self) -> str:
        return table_html(self)
