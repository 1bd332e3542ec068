"""The page that spans a run."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ctinv.adapters._types import Image
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.reporting import overview
from ctinv.invariance.reporting.parts import thumbnail
from ctinv.invariance.reporting.result import AnalysisResult

from .locks import in_turn
from .outcomes import outcome
from .table import BOUNDS, TABLE, Row, read_table

__all__ = ["PAGE", "write_page"]

PAGE = "report.html"
_MOST_MAPS = 200  # cases up to which the page holds their maps


def write_page(out: Path) -> Path | None:
    """Write ``report.html`` from a run's table; None where no case is finished.

    Raises:
        CtinvError: The folder cannot be written, or holds no table.
    """
    with in_turn(out):
        rows = list(read_table(out / TABLE))
        finished = [row for row in rows if row.status == "done"]
        if not finished:
            (out / PAGE).unlink(missing_ok=True)
            return None
        mapped = len(finished) <= _MOST_MAPS
        cases = [_case(out, row, mapped) for row in finished]
        failed = [(row.folder, row.error) for row in rows if row.status == "failed"]
        return overview.summary(cases, out / PAGE, failed=failed, notices=_notices(out, finished[0]))


def _case(out: Path, row: Row, mapped: bool) -> overview.Case:
    bounds = {key: getattr(row, name) for name, key in BOUNDS.items()}
    return overview.Case(
        model=row.model or "the model",
        layer=row.layer or "a layer",
        source=row.slice or "image",
        figures={**row.figures, **bounds},
        path=PurePosixPath(row.folder, PAGE) if (out / row.folder / PAGE).is_file() else None,
        thumbnail=_map(out / row.folder) if mapped else None,
        verdict=row.verdict,
    )


def _map(folder: Path) -> Image | None:
    try:
        return thumbnail(AnalysisResult.load(folder).std)
    except CtinvError:  # the row is there, its images are not
        return None


def _notices(out: Path, row: Row) -> list[str]:
    """What the user should know of the first case, as a run's cases mostly share it."""
    known = outcome(out / row.folder) or {}
    return [str(notice) for notice in known.get("notices") or ()]
