"""How a finished analysis is shown and told apart on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .console import Screen

if TYPE_CHECKING:
    from ctinv.invariance.reporting.explanation import Explanation

__all__ = ["division", "show", "with_meta"]

_ROWS = 9
_MOST_SHOWN = 12
_MOST_PATIENTS = 20
_PARTS = {"train": "training", "validation": "validation", "test": "test"}


def with_meta(explanation: Explanation, **known: Any) -> Explanation:
    """The same explanation with what the command line knows about its origin.

    What the explanation says already stays; values of None add nothing.
    """
    import dataclasses

    added = {key: value for key, value in known.items() if getattr(explanation.meta, key) is None}
    return dataclasses.replace(explanation, meta=dataclasses.replace(explanation.meta, **added))


def division(split: Mapping[str, Sequence[str]]) -> str:
    """One line on how the patients of a data set were divided, body part by body part, and who they are.

    Example:
        >>> division({"train": ["C001", "L002"], "validation": [], "test": ["L004"]})
        'patients: chest 1 training, 0 validation, 0 test; abdomen 1 training, 0 validation, 1 test; \
only training is used (training: C001, L002; test: L004)'
    """
    from ctinv.invariance.data.scans import REGIONS

    everyone = [patient for patients in split.values() for patient in patients]
    published = all(re.fullmatch(r"[CLN]\d{3}", patient) for patient in everyone)
    rows = []
    for letter in sorted({patient[:1] for patient in everyone}) if published else [""]:
        counts = ((name, sum(p.startswith(letter) for p in split[part])) for part, name in _PARTS.items())
        rows.append(f"{REGIONS.get(letter, letter)} {', '.join(f'{n} {name}' for name, n in counts)}".strip())
    who = (f"{name}: {_few(split[part])}" for part, name in _PARTS.items() if split[part])
    return f"patients: {'; '.join(rows)}; only training is used ({'; '.join(who)})"


def _few(patients: Sequence[str]) -> str:
    more = f" and {len(patients) - _MOST_PATIENTS} more" if len(patients) > _MOST_PATIENTS else ""
    return ", ".join(patients[:_MOST_PATIENTS]) + more


def show(screen: Screen, out: Path, folders: Sequence[Path], report: Path | None, single: bool) -> int:
    """Print the verdicts, the main audit figures and the files of finished cases, one after another.

    Of many cases only the numbers and the failures are printed; ``--json`` has them all.

    Arguments:
        screen: Where to print.
        out: The folder of the run.
        folders: Those of the cases, below it.
        report: The page on all of them, where there is one.
        single: Whether the run is one analysis alone.

    Returns:
        How many of the cases have failed.
    """
    from ctinv.invariance.runs.outcomes import outcome
    from ctinv.invariance.runs.table import TABLE

    failed = 0

    def results() -> Iterator[Mapping[str, Any]]:
        nonlocal failed
        for folder in folders:
            one = outcome(out / folder)
            if one is None:
                continue
            failed += "error" in one
            yield {**one, "files": {n: str(p) for n, p in _files(out / folder).items()}}

    if screen.as_json:
        screen.result(next(results()) if single else results())
        return failed
    many = len(folders) > _MOST_SHOWN
    for folder, one in zip(folders, results(), strict=False):
        if not many and "error" not in one:
            _show_one(screen, out / folder)
    if many:
        screen.line(f"\n{len(folders)} cases, {failed} of them failed")
    if report is not None:
        screen.line(f"\nthe report on all of them: {report}")
    if not single:
        screen.line(f"the table of all of them: {out / TABLE}")
    return failed


def _files(folder: Path) -> dict[str, Path]:
    from ctinv.invariance.runs.outcomes import ERROR, FILES

    return {name: folder / name for name in sorted((*FILES, ERROR)) if (folder / name).is_file()}


def _show_one(screen: Screen, folder: Path) -> None:
    from ctinv.invariance import Explanation
    from ctinv.invariance.audit.scores import scores

    e = Explanation.load(folder)
    screen.line(f"\n{e.meta.model}, {e.meta.layer}, {Path(e.meta.source or 'image').name}")
    rows = [(s.title, s.text, "" if s.n is None else str(s.n)) for s in scores(e.audit)[:_ROWS]]
    if rows:
        screen.table("", ("Audit", "Value", "n"), rows)
    for line in e.audit.verdict:
        screen.line(line)
    screen.line(f"written to {folder}: {', '.join(sorted(_files(folder), reverse=True))}")
