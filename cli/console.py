"""What the command line says, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ctinv.adapters._types import Progress
    from rich.console import Console

__all__ = ["Heartbeat", "Screen"]


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
        self._stack.enter_context(self._cache_told())
        return self

    @contextlib.contextmanager
    def _cache_told(self) -> Iterator[None]:
        """Of all warnings about the cache the first becomes a note: one fault has many faces."""
        from ctinv.invariance.infra.notices import CacheWarning

        told: list[str] = []

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, CacheWarning):
                before(message, category, *where, **more)
            elif not told:
                told.append(str(message))
                self.note(f"note: {message}")

        with warnings.catch_warnings():
            warnings.simplefilter("always", CacheWarning)
            before, warnings.showwarning = warnings.showwarning, tell
            yield

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def note(self, text: str) -> None:
        """Tell the user something along the way."""
        if not self.quiet:
            # Whoever read the notes may have gone; the work goes on.
            with contextlib.suppress(OSError):
                click.echo(text, err=True)

    def result(self, value: Any) -> None:
        """Print a machine-readable result; call it once.

        Arguments:
            value: JSON values; an iterator is printed as a list, entry by entry.
        """
        if not self._leads:
            return
        if isinstance(value, Iterator):
            for piece in _list_text(value):
                click.echo(piece, file=self._stdout, nl=False)
            return
        click.echo(_json(value), file=self._stdout)

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
        """Show what long work reports, with the time left; None where nobody watches.

        On a terminal as bars, elsewhere as a line every half minute.
        """
        if self.quiet:
            yield None
            return
        if not sys.stderr.isatty():
            yield Heartbeat(self.note)
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


class Heartbeat:
    """Tells at times how far long work has come, how fast it goes and how long it will take.

    Arguments:
        say: Gets each line.
        every: Seconds between two lines.
        clock: Seconds that only go forward.

    Example:
        >>> seconds = iter([0, 10, 40, 50])
        >>> tell = Heartbeat(print, clock=lambda: next(seconds))
        >>> for done in (0, 1, 4, 5):
        ...     tell("cases", done, 100)
        cases: 4 of 100, 10 s each, 16 min left
    """

    def __init__(
        self, say: Callable[[str], None], every: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._every, self._clock = say, every, clock
        self._told: float | None = None
        self._begun: dict[str, tuple[float, int]] = {}
        self._now: dict[str, tuple[int, int]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take note; what is finished is forgotten."""
        now = self._clock()
        self._begun.setdefault(stage, (now, done))
        self._now[stage] = done, total
        if self._told is None:
            self._told = now
        if now - self._told >= self._every:
            self._told = now
            # The whole first, then what is under way in it.
            stages = list(dict.fromkeys(name for name in ("cases", stage) if name in self._now))
            self._say("; ".join(self._text(name, now) for name in stages))
        if done >= total:
            self._begun.pop(stage)
            self._now.pop(stage)

    def _text(self, stage: str, now: float) -> str:
        done, total = self._now[stage]
        begun, first = self._begun[stage]
        if done <= first or now <= begun:
            return f"{stage}: {done} of {total}"
        each = (now - begun) / (done - first)
        pace = f"{each:.3g} s each" if each >= 1 else f"{1 / each:.3g} a second"
        return f"{stage}: {done} of {total}, {pace}, {_duration(each * (total - done))} left"


def _duration(seconds: float) -> str:
    """Example: 3700 s are '1 h 2 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)


def _list_text(values: Iterator[Any]) -> Iterator[str]:
    """The text of a list, entry by entry, as it would be in one piece."""
    start = "[\n"
    for value in values:
        yield start + "\n".join(f"  {line}" for line in _json(value).splitlines())
        start = ",\n"
    yield "[]\n" if start == "[\n" else "\n]\n"


def _console(file: Any) -> Console:
    from rich.console import Console

    # A pipe has no width; rich would take 80 columns and fold every layer name.
    return Console(file=file, highlight=False, width=None if file.isatty() else 160)
