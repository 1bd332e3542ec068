"""``ctinv gather``: table and page of a run from what is on disk."""

from __future__ import annotations

from pathlib import Path

import click

from .console import Screen
from .options import json_option, quiet_option

__all__ = ["gather"]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@json_option
@quiet_option
def gather(folder: Path, as_json: bool, quiet: bool) -> None:
    """Write runs.csv and report.html of FOLDER anew, from the cases that are in it.

    For runs whose shards wrote to several machines, that were killed, or whose cases were moved.

    \b
    Example:
      ctinv gather out
    """
    with Screen(as_json, quiet) as screen:
        from ctinv.adapters.errors import CtinvError
        from ctinv.invariance.runs.pages import write_page
        from ctinv.invariance.runs.table import case_folders, read_table, rows_of, write_table

        cases = case_folders(folder)
        if not cases:
            raise CtinvError(f"{folder} holds no result.json; give a folder that ctinv analyze wrote")
        table = write_table(folder, rows_of(folder, cases))
        failed = sum(row.status == "failed" for row in read_table(table))
        report = write_page(folder)
        if as_json:
            counts = {"cases": len(cases), "failed": failed}
            screen.result({**counts, "table": str(table), "report": str(report)})
            return
        screen.line(f"{len(cases)} cases, {failed} of them failed: {table}, {report}")
