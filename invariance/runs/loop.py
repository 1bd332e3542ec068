"""Case by case: what is there already is passed over, what fails leaves its reason, the rest is analysed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ctinv.adapters._types import Progress

from .cases import Case
from .outcomes import FILES, clear_failure, done, record_failure

__all__ = ["RunEnds", "Tally", "Work", "run_cases"]


class RunEnds(Exception):  # noqa: N818  (it wraps the error that is told)
    """Raised by work where going on makes no sense: every case would fail alike.

    Arguments:
        reason: What the run ends with.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Work(Protocol):
    """What the loop must know of the cases; a room above fills it in."""

    def key(self, case: Case) -> str:
        """What decides its outcome."""

    def solve(self, case: Case, key: str) -> Any:
        """Analyse it: something that can be saved into a folder."""

    def failure(self, case: Case, key: str, error: Exception) -> Any:
        """The record of why it failed."""


@dataclass
class Tally:
    """How far a run has come.

    Arguments:
        total: Cases in this run or shard.
        solved: Analysed now.
        kept: There already.
        failed: Ended with an error now.
        seconds: Spent on those solved and failed.
    """

    total: int
    solved: int = 0
    kept: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def over(self) -> int:
        """Cases that are behind us."""
        return self.solved + self.kept + self.failed

    def __str__(self) -> str:
        words = f"{self.over} of {self.total} cases"
        if self.kept:
            words += f", {self.kept} of them there already"
        if self.failed:
            words += f", {self.failed} failed"
        return words


def run_cases(
    cases: Sequence[Case] | Iterable[Case],
    total: int,
    out: Path,
    work: Work,
    *,
    fail_fast: bool = False,
    again: bool = False,
    files: Collection[str] = FILES,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tally:
    """Analyse cases one by one; each is written and forgotten before the next begins.

    Arguments:
        cases: The cases of this process.
        total: How many.
        out: The run's folder.
        work: How to analyse one.
        fail_fast: Let the first error end the run.
        again: Analyse what is there already, too.
        files: What a finished case consists of.
        progress: Told ("cases", done, total).
        clock: Seconds that only go forward.

    Raises:
        CtinvError: The folder cannot be written: not the case's fault, and the next would fare alike.
    """
    tally = Tally(total)
    for case in cases:
        folder = out / case.folder
        key = work.key(case)
        started = clock()
        if not again and done(folder, key, files):
            tally.kept += 1
        elif _solved(case, key, folder, work, fail_fast):
            tally.solved += 1
            tally.seconds += clock() - started
        else:
            tally.failed += 1
            tally.seconds += clock() - started
        if progress is not None:
            # What was there already tells nothing of how fast the rest goes.
            progress("cases", tally.solved + tally.failed, total - tally.kept)
    return tally


def _solved(case: Case, key: str, folder: Path, work: Work, fail_fast: bool) -> bool:
    try:
        saving = work.solve(case, key)
    except RunEnds as end:
        raise end.reason from None
    except Exception as error:
        if fail_fast:
            raise
        record_failure(folder, work.failure(case, key, error))
        return False
    saving.save(folder)
    clear_failure(folder)
    return True
