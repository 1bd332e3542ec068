"""The record of an analysis, as users meet it: it also draws itself and writes its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctinv.invariance.infra.files import write_files

from .figure import figure_png
from .report import report_html
from .result import AnalysisResult

__all__ = ["Explanation"]


@dataclass(frozen=True, eq=False)
class Explanation(AnalysisResult):
    """One image seen through one layer: the images that the layer cannot tell apart.

    The fields are those of :class:`ctinv.invariance.reporting.result.AnalysisResult`.
    """

    def save(self, out_dir: str | Path) -> dict[str, Path]:
        """Write ``result.json``, ``arrays.npz``, ``figure.png`` and ``report.html``.

        The files appear whole or not at all; ``result.json`` comes last, so where it is, the
        others are.

        Arguments:
            out_dir: Folder; made where it does not exist.

        Returns:
            The path of each file by name.

        Raises:
            CtinvError: The folder cannot be written.
        """
        png = figure_png(self)
        report = report_html([self], figures=[png]).encode()
        return write_files(
            out_dir,
            {
                "arrays.npz": self.npz_file(),
                "figure.png": png,
                "report.html": report,
                "result.json": self.json_file(),
            },
        )
