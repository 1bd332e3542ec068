"""The table of a run: one row for each case, read from what the cases left on disk."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Audit, Figure
from ctinv.invariance.infra.files import replacing
from ctinv.invariance.networks.fit_record import Timings

from .outcomes import ANSWERS, ERROR, RESULT, outcome

__all__ = [
    "BOUNDS",
    "COLUMNS",
    "TABLE",
    "Row",
    "case_folders",
    "read_table",
    "row_of",
    "rows_of",
    "write_table",
]

TABLE = "runs.csv"

BOUNDS = {"lower": "bounds.lower", "upper": "bounds.upper", "noise": "bounds.noise"}
"""Figures that have columns of their own names."""
_TRUTH = {True: "true", False: "false", None: ""}


def _figures(kind: type, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The path of every figure that an audit has a place for."""
    for name, hint in get_type_hints(kind).items():
        inner = get_args(hint)[0] if get_origin(hint) in (Union, type(int | None)) else hint
        if isinstance(inner, type) and issubclass(inner, Figure):
            yield ".".join((*path, name))
        elif dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from _figures(inner, (*path, name))


_FIGURES = tuple(key for key in _figures(Audit) if key not in BOUNDS.values())
_SECONDS = tuple(field.name for field in dataclasses.fields(Timings))


@dataclass(frozen=True)
class Row:
    """What the table says of one case.

    Arguments:
        folder: Where its files are, below the run's folder; ``.`` for that folder itself.
        model: The model's name.
        layer: The layer's name.
        slice: What the slice is called.
        status: ``done`` or ``failed``.
        error: Why it failed.
        model_hash: SHA-256 of what decides the model's numbers.
        op: The layer's operator.
        lower: Anatomy hidden at least, HU.
        upper: Hidden at most on held-out slices, HU.
        noise: Noise hidden at least, HU.
        converged: Whether the search for the lower bounds had ended.
        verdict: The sentences that sum the audit up.
        samples: Draws of the flow.
        seed: Decides everything random.
        case: The key of the case.
        figures: Every other figure of the audit by its path, such as ``leakage.refined``.
        seconds: Time by stage; of the fit, too, where it was made for this case.
    """

    folder: str
    model: str
    layer: str
    slice: str
    status: str
    error: str = ""
    model_hash: str = ""
    op: str = ""
    lower: float | None = None
    upper: float | None = None
    noise: float | None = None
    converged: bool | None = None
    verdict: str = ""
    samples: int | None = None
    seed: int | None = None
    case: str = ""
    figures: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float | None] = dataclasses.field(default_factory=dict)


_PLAIN = tuple(f.name for f in dataclasses.fields(Row) if f.name not in ("figures", "seconds"))
COLUMNS = (*_PLAIN, *_FIGURES, *(f"seconds.{name}" for name in _SECONDS))
"""Heads of the table."""


def row_of(root: Path, folder: Path) -> Row | None:
    """The row of a case from its files; None where it left neither a result nor a reason.

    Arguments:
        root: The run's folder.
        folder: The case's, below it.
    """
    known = outcome(root / folder)
    if known is None:
        return None
    try:
        return _row(folder.as_posix(), known)
    except (AttributeError, TypeError, ValueError):  # a file of another kind under the same name
        return None


def _row(folder: str, record: Mapping[str, Any]) -> Row:
    def text(key: str) -> str:
        return str(record.get(key) or "")

    failed = "error" in record
    audit = record.get("audit") or {}
    bounds = {name: _value(audit, key) for name, key in BOUNDS.items()}
    timings = record.get("timings") or {}
    return Row(
        folder=folder,
        model=text("model"),
        layer=text("layer"),
        slice=text("source"),
        status="failed" if failed else "done",
        error=text("error"),
        model_hash=text("model_hash"),
        op=text("op"),
        **bounds,
        converged=(audit.get("bounds") or {}).get("converged"),
        verdict=" ".join(audit.get("verdict") or ()),
        samples=record.get("samples"),
        seed=record.get("seed"),
        case=text("case"),
        figures={key: _value(audit, key) for key in _FIGURES},
        seconds={name: timings.get(name) for name in _SECONDS},
    )


def _value(audit: Mapping[str, Any], key: str) -> float | None:
    place: Any = audit
    for part in key.split("."):
        place = (place or {}).get(part)
    value = (place or {}).get("value")
    return None if value is None else float(value)


def rows_of(root: Path, folders: Iterable[Path]) -> Iterator[Row]:
    """The rows of cases one by one, in the order of their folders; cases without files have none."""
    for folder in sorted(folders, key=_natural):
        row = row_of(root, folder)
        if row is not None:
            yield row


def case_folders(root: Path) -> list[Path]:
    """Every folder below a run's that holds a result or a reason, as the run wrote them.

    Raises:
        CtinvError: There is no such folder.
    """
    if not root.is_dir():
        raise CtinvError(f"{root} is no folder; give one that ctinv analyze wrote")
    folders = {file.parent.relative_to(root) for name in (RESULT, ERROR) for file in root.rglob(name)}
    # Answers to further questions lie within the case that they are about.
    within = {folder for folder in folders if folder.name in ANSWERS and folder.parent in folders}
    return sorted(folders - within, key=_natural)


def _natural(folder: Path) -> list[tuple[int, int | str]]:
    words = re.split(r"(\d+)", folder.as_posix())
    return [(0, int(word)) if word.isdigit() else (1, word) for word in words if word]


def write_table(root: Path, rows: Iterable[Row]) -> Path:
    """Write ``runs.csv`` into a run's folder; it appears whole or not at all.

    Values that are not known are empty; numbers have all their digits.

    Raises:
        CtinvError: The folder cannot be written.
    """
    path = root / TABLE
    try:
        with replacing(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow(_cells(row))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise CtinvError(f"cannot write {path}: {reason}; name another folder") from error
    return path


def _cells(row: Row) -> list[str]:
    plain = (getattr(row, name) for name in _PLAIN)
    figures = (row.figures.get(name) for name in _FIGURES)
    seconds = (row.seconds.get(name) for name in _SECONDS)
    return [_cell(value) for values in (plain, figures, seconds) for value in values]


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return _TRUTH[value]
    return repr(value) if isinstance(value, float) else str(value)


def read_table(path: Path) -> Iterator[Row]:
    """The rows of a table that :func:`write_table` wrote.

    Raises:
        CtinvError: It is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                yield _parsed(line)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise CtinvError(f"{path} is no readable table ({error}); make it anew with ctinv gather") from error


def _parsed(line: Mapping[str, str]) -> Row:
    def number(key: str) -> float | None:
        return float(line[key]) if line[key] else None

    whole = {key: int(line[key]) if line[key] else None for key in ("samples", "seed")}
    bounds = {name: number(name) for name in BOUNDS}
    texts: Any = {key: line[key] for key in {*_PLAIN} - {*whole, *bounds, "converged"}}
    return Row(
        **texts,
        **whole,  # type: ignore[arg-type]
        **bounds,  # type: ignore[arg-type]
        converged={text: truth for truth, text in _TRUTH.items()}[line["converged"]],
        figures={key: number(key) for key in _FIGURES},
        seconds={key: number(f"seconds.{key}") for key in _SECONDS},
    )
