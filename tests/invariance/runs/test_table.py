"""The table of a run: what is read from disk, written and read again."""

import csv
import json

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.audit.record import Audit, Bounds, Figure, Leakage, LowerBound
from ctinv.invariance.audit.scores import scores
from ctinv.invariance.infra.records import plain
from ctinv.invariance.runs.table import (
    COLUMNS,
    TABLE,
    Row,
    case_folders,
    read_table,
    row_of,
    rows_of,
    write_table,
)

AUDIT = Audit(
    bounds=Bounds(
        lower=LowerBound(1.1, growth=0.0, steps=3, converged=True),
        upper=Figure(9.5),
        noise=LowerBound(0.1 + 0.2, growth=0.0, steps=3, converged=True),
        converged=True,
    ),
    leakage=Leakage(refined=Figure(0.25), flow=Figure(float("nan"))),
    verdict=("One.", "Two, with a comma."),
)


def result(place, **more):
    place.mkdir(parents=True, exist_ok=True)
    about = {
        "schema_version": 1,
        "model": "m",
        "layer": "l",
        "source": "s",
        "case": "k",
        "samples": 7,
        "seed": 0,
        "timings": {"sampling": 1.5},
        "audit": plain(AUDIT),
    }
    (place / "result.json").write_text(json.dumps({**about, **more}))


def test_a_row_says_what_the_files_say(tmp_path):
    result(tmp_path / "a")
    row = row_of(tmp_path, (tmp_path / "a").relative_to(tmp_path))
    assert (row.folder, row.model, row.layer, row.slice, row.status) == ("a", "m", "l", "s", "done")
    assert (row.lower, row.upper, row.noise, row.converged) == (1.1, 9.5, 0.1 + 0.2, True)
    assert (row.verdict, row.samples, row.seed) == ("One. Two, with a comma.", 7, 0)
    assert row.figures["leakage.refined"] == 0.25
    assert row.figures["leakage.flow"] is None
    assert row.seconds["sampling"] == 1.5


def test_every_figure_of_an_audit_has_a_column():
    """All that an audit can hold, but the curve, whose ratios are the user's."""
    named = {row.key for row in scores(AUDIT)} - {"bounds.lower", "bounds.upper", "bounds.noise"}
    assert named <= set(COLUMNS)
    assert {"map.std", "where.bone", "leakage_in.lung", "controls", "image.strangeness"} <= set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_a_table_reads_back_as_it_was(tmp_path):
    result(tmp_path / "a")
    (tmp_path / "b").mkdir()
    failure = {"schema_version": 1, "model": "m", "layer": "l", "source": "s", "case": "k"}
    (tmp_path / "b" / "error.json").write_text(json.dumps({**failure, "error": 'no, "never"'}))
    rows = list(rows_of(tmp_path, case_folders(tmp_path)))
    assert [row.status for row in rows] == ["done", "failed"]
    path = write_table(tmp_path, rows)
    assert path == tmp_path / TABLE
    assert list(read_table(path)) == rows
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert (lines[0]["noise"], lines[0]["converged"], lines[0]["leakage.flow"]) == (
        "0.30000000000000004",
        "true",
        "",
    )
    assert lines[1]["error"] == 'no, "never"'


def test_rows_come_in_the_order_of_folders_that_people_expect(tmp_path):
    for name in ("s10/l", "s9/l", "s10/a", "."):
        result(tmp_path / name)
    folders = [row.folder for row in rows_of(tmp_path, case_folders(tmp_path))]
    assert folders == [".", "s9/l", "s10/a", "s10/l"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'{"schema_version": 99}',
        b'{"schema_version": 1, "audit": 3}',
        b"\xff\xfe",
        b"{}",
    ],
)
def test_files_of_others_are_no_cases(tmp_path, content):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "result.json").write_bytes(content)
    assert list(rows_of(tmp_path, case_folders(tmp_path))) == []


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / TABLE).write_text("a,b\n1,2\n")
    with pytest.raises(CtinvError, match="ctinv gather"):
        list(read_table(tmp_path / TABLE))
    with pytest.raises(CtinvError, match="is no folder"):
        case_folders(tmp_path / "nowhere")


def test_a_row_needs_no_figures():
    assert Row("a", "m", "l", "s", "failed").lower is None
