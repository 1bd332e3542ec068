"""What the command line says, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress
    from rich.console import Console

__all__ = ["Screen"]


class Screen:
    """One command's output; use it as a context manager around the work.

    With ``as_json`` standard output belongs to the result alone: whatever else prints during the
    work, a model's own code for instance, is sent to standard error.

    Arguments:
        as_json: Print the result as JSON.
        quiet: Say nothing but the result and errors.
        leads: Whether this process speaks for all that work together; the others are silent.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False, leads: bool = True) -> None:
        self.as_json = as_json
        self.quiet = quiet or as_json or not leads
        self._leads = leads
        self._stack = contextlib.ExitStack()
        self._stdout = sys.stdout

    def __enter__(self) -> Screen:
        self._stdout = sys.stdout
        if self.as_json:
            self._stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def note(self, text: str) -> None:
        """Tell the user something along the way."""
        if not self.quiet:
            click.echo(text, err=True)

    def result(self, value: Any) -> None:
        """Print a machine-readable result; call it once."""
        if not self._leads:
            return
        click.echo(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False), file=self._stdout)

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table on standard output; left out when there is a JSON result instead."""
        if self.as_json or not self._leads:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        # Text, not str: rich would read brackets such as [mm] as markup.
        title_text = Text(title) if title else None
        table = Table(title=title_text, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for head in heads:
            table.add_column(Text(head), overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        _console(self._stdout).print(table)

    def line(self, text: str) -> None:
        """Print one line on standard output; left out when there is a JSON result instead."""
        if not self.as_json and self._leads:
            click.echo(text, file=self._stdout)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """Show what long work reports, with the time left; None where nobody watches."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bars = Bars(*columns, console=_console(sys.stderr), transient=True)
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total, visible=done < total)

        with bars:
            yield report


def _console(file: Any) -> Console:
    from rich.console import Console

    # A pipe has no width; rich would take 80 columns and fold every layer name.
    return Console(file=file, highlight=False, width=None if file.isatty() else 160)
