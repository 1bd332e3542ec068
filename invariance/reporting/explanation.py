"""The record of an analysis, as users meet it: it also draws itself and writes its report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.data.io.slices import CTSlice
from ctinv.invariance.infra.files import remove_files, write_files

from .added import Added
from .dicom import dicom_files
from .figure import figure_png
from .notebook import plot, short_html, to_dataframe, to_xarray
from .report import report_html
from .result import AnalysisResult

__all__ = ["FORMATS", "Explanation"]

FORMATS = ("dicom",)
"""What :meth:`Explanation.save` writes on request, besides its usual files."""


@dataclass(frozen=True, eq=False)
class Explanation(AnalysisResult):
    """One image seen through one layer: the images that the layer cannot tell apart.

    The fields are those of :class:`ctinv.invariance.reporting.result.AnalysisResult`.
    """

    def save(
        self,
        out_dir: str | Path,
        *,
        report: bool = True,
        formats: Collection[str] = (),
        template: CTSlice | None = None,
        deidentify: bool = False,
        added: Sequence[Added] = (),
    ) -> dict[str, Path]:
        """Write ``result.json``, ``arrays.npz``, ``figure.png`` and ``report.html``.

        The files appear whole or not at all; ``result.json`` comes last, so where it is, the
        others are.

        Arguments:
            out_dir: Folder; made where it does not exist.
            report: Draw the figure and write the page, which takes about a second; otherwise those that
                an earlier answer left there are removed.
            formats: What to write besides: ``dicom``, see
                :func:`ctinv.invariance.reporting.dicom.dicom_files`.
            template: The slice that was explained; DICOM takes place and patient from it.
            deidentify: Leave out of DICOM what tells the patient.
            added: Answers to further questions, such as a swap, that the report shows as well.

        Returns:
            The path of each file by name.

        Raises:
            CtinvError: The folder cannot be written, or a format is unknown or cannot be made.
        """
        unknown = set(formats) - set(FORMATS)
        if unknown:
            raise CtinvError(f"format {min(unknown)!r} is not known; choose one of: {', '.join(FORMATS)}")
        if formats and template is None:
            raise CtinvError("DICOM output needs the slice that was explained; give it as template")
        more = dicom_files(self, template, deidentify=deidentify) if formats and template else {}
        pages: dict[str, bytes] = {}
        if report:
            pages["figure.png"] = figure_png(self)
            pages["report.html"] = report_html(self, pages["figure.png"], added).encode()
        else:
            remove_files(out_dir, ("report.html", "figure.png"))
        return write_files(
            out_dir, {"arrays.npz": self.npz_file(), **pages, **more, "result.json": self.json_file()}
        )

    def plot(self, axes: Sequence[Any] | npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Draw x, a sample, their difference and the map.

        Arguments:
            axes: Matplotlib axes; None for those of a new figure.

        Returns:
            The axes.
        """
        return plot(self, axes)

    def to_xarray(self) -> Any:
        """All arrays as an ``xarray.Dataset``, HU.

        Raises:
            CtinvError: xarray is not installed.
        """
        return to_xarray(self)

    def to_dataframe(self) -> Any:
        """All audit figures as a ``pandas.DataFrame``, by their keys.

        Raises:
            CtinvError: pandas is not installed.
        """
        return to_dataframe(self)

    def _repr_html_(self) -> str:
        return short_html(self)
