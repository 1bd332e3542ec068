"""Case by case: kept, solved or failed; nothing of a failure but its reason."""

import json
from pathlib import Path

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.runs.cases import Case, Shard
from ctinv.invariance.runs.locks import alone_in
from ctinv.invariance.runs.loop import RunEnds, run_cases
from ctinv.invariance.runs.outcomes import FILES, Failure, done, outcome, without_paths

CASES = [Case(0, 0, n, Path(f"s{n}")) for n in range(5)]


class Answer:
    def __init__(self, key):
        self.key = key

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_text(json.dumps({"schema_version": 1, "case": self.key}))


class Work:
    def __init__(self, broken=(), word="key"):
        self.broken, self.word, self.solved = broken, word, []

    def key(self, case):
        return f"{self.word}{case.slice}"

    def solve(self, case, key):
        self.solved.append(case.slice)
        if case.slice in self.broken:
            raise self.broken[case.slice]
        return Answer(key)

    def failure(self, case, key, error):
        return Failure("m", "h", "l", f"s{case.slice}", key, str(error), type(error).__name__)


def test_a_case_that_fails_does_not_end_the_run(tmp_path):
    work = Work({1: ValueError("odd"), 3: MemoryError()})
    tally = run_cases(CASES, 5, tmp_path, work)
    assert (tally.solved, tally.kept, tally.failed) == (3, 0, 2)
    assert outcome(tmp_path / "s1")["error"] == "odd"
    assert {p.name for p in (tmp_path / "s1").iterdir()} == {"error.json"}
    assert done(tmp_path / "s0", "key0")
    assert str(tally) == "5 of 5 cases, 2 failed"


def test_what_is_there_is_kept_and_what_failed_is_tried_again(tmp_path):
    run_cases(CASES, 5, tmp_path, Work({1: ValueError("odd")}))
    work = Work()
    tally = run_cases(CASES, 5, tmp_path, work)
    assert work.solved == [1]
    assert (tally.solved, tally.kept, tally.failed) == (1, 4, 0)
    assert {p.name for p in (tmp_path / "s1").iterdir()} == set(FILES)


def test_another_question_is_answered_anew(tmp_path):
    run_cases(CASES, 5, tmp_path, Work())
    work = Work(word="other")
    assert run_cases(CASES, 5, tmp_path, work).solved == 5
    again = Work(word="other")
    assert run_cases(CASES, 5, tmp_path, again, again=True).solved == 5


@pytest.mark.parametrize("name", FILES)
def test_a_case_that_lost_a_file_is_analysed_again(tmp_path, name):
    run_cases(CASES, 5, tmp_path, Work())
    (tmp_path / "s2" / name).unlink()
    work = Work()
    run_cases(CASES, 5, tmp_path, work)
    assert work.solved == [2]


def test_an_old_result_goes_where_the_new_question_fails(tmp_path):
    run_cases(CASES, 5, tmp_path, Work())
    run_cases(CASES, 5, tmp_path, Work({2: ValueError("odd")}, word="other"))
    assert {p.name for p in (tmp_path / "s2").iterdir()} == {"error.json"}


def test_the_first_failure_ends_the_run_where_that_is_asked_for(tmp_path):
    work = Work({1: ValueError("odd")})
    with pytest.raises(ValueError, match="odd"):
        run_cases(CASES, 5, tmp_path, work, fail_fast=True)
    assert work.solved == [0, 1]
    assert not (tmp_path / "s1").exists()


def test_what_every_case_would_suffer_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="odd"):
        run_cases(CASES, 5, tmp_path, Work({1: RunEnds(ValueError("odd"))}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s0"]


def test_an_interruption_is_no_failure_of_a_case(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_cases(CASES, 5, tmp_path, Work({1: KeyboardInterrupt()}))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s0"]


def test_a_folder_that_cannot_be_written_ends_the_run(tmp_path):
    """Not the case's fault, and the next would fare alike."""
    (tmp_path / "s1").write_text("a file in the way")
    work = Work({1: ValueError("odd")})
    with pytest.raises(CtinvError, match="cannot write into"):
        run_cases(CASES, 5, tmp_path, work)
    assert work.solved == [0, 1]


def test_progress_counts_work_not_what_was_there(tmp_path):
    run_cases(CASES[:2], 2, tmp_path, Work())
    told = []
    run_cases(CASES, 5, tmp_path, Work(), progress=lambda *words: told.append(words))
    assert told[-1] == ("cases", 3, 3)
    assert [done for _, done, _ in told] == [0, 0, 1, 2, 3]


def test_reasons_name_no_place_of_the_input():
    file = Path("/data/Doe^John/ct/1.dcm")
    told = without_paths(
        OSError("cannot read /data/Doe^John/ct/1.dcm in /data/Doe^John/ct:\n 1.dcm"), file, name="slice-ab"
    )
    assert told == "cannot read slice-ab in slice-ab: slice-ab"
    beside = "no twin: /data/Doe Jane/ct/2.dcm, /data/Doe Jane/notes.txt:3 or '/data/x/y'"
    assert (
        without_paths(ValueError(beside), Path("/data/Doe Jane/ct/1.dcm"), name="s")
        == "no twin: s, s:3 or 's'"
    )
    assert without_paths(ValueError("the act of 11.dcm"), Path("ct/1.dcm"), name="s") == "the act of 11.dcm"
    assert without_paths(KeyError(), name="s") == "KeyError"
    assert len(without_paths(ValueError("x" * 9999), name="s")) <= 500


def test_one_run_at_a_time_works_in_a_folder(tmp_path):
    out = tmp_path / "new" / "out"
    with alone_in(out, Shard()):
        with pytest.raises(CtinvError, match="another run is writing"), alone_in(out, Shard()):
            pass
        with alone_in(out, Shard(1, 2)), alone_in(out, Shard(2, 2)):
            pass
    assert not out.parent.exists()
    with alone_in(out, Shard()):
        (out / "result").write_text("")
    assert [p.name for p in out.iterdir()] == ["result"]
