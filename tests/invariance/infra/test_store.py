"""Entries of the cache: whole or not used, the oldest go first, and no fault of the disk ends the work."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra import cache as cache_module
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.notices import CacheWarning
from ctinv.invariance.infra.store import cache_limit, clear, entries, fetch, keep, made_once, prune

NOTE = "CTINV_CACHE to another folder"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CTINV_CACHE_SIZE", raising=False)
    return tmp_path / "cache"


def place(name="entry", room="explainers"):
    return cache_root() / room / name


def put(text="text", **where):
    folder = place(**where)
    keep(folder, lambda draft: (draft / "a.txt").write_text(text) and (draft / "b.txt").write_text("b"))
    return folder


def get(folder):
    return fetch(folder, lambda entry: (entry / "a.txt").read_text())


def test_what_is_kept_is_found_again():
    assert get(place()) is None
    assert get(put()) == "text"
    assert get(put("new")) == "new"
    assert [p for p in cache_root().rglob("*") if p.is_file() and p.stat().st_mode & 0o077] == []


def flip(folder):
    raw = bytearray((folder / "b.txt").read_bytes())
    raw[0] ^= 1
    (folder / "b.txt").write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, "b.txt has changed"),
        (lambda folder: (folder / "b.txt").unlink(), "b.txt is missing"),
        (lambda folder: (folder / "a.txt").write_text(""), "a.txt has changed"),
        (lambda folder: (folder / "sums.json").write_text("{"), "sums.json is unreadable"),
    ],
)
def test_a_damaged_entry_is_removed_and_told(damage, told):
    folder = put()
    damage(folder)
    with pytest.warns(CacheWarning, match=told) as warned:
        assert get(folder) is None
    assert NOTE in str(warned[0].message)
    assert str(cache_root()) in str(warned[0].message)
    assert not folder.exists()
    put()
    assert get(folder) == "text"


def test_an_entry_that_cannot_be_understood_is_as_good_as_none():
    folder = put()

    def odd(_):
        raise CtinvError("of a later version")

    with pytest.warns(CacheWarning, match="of a later version"):
        assert fetch(folder, odd) is None


def test_what_was_used_longest_ago_goes_first():
    for age, name in enumerate("dcba"):
        put("x" * 1000, name=name)
        os.utime(place(name), (1e9 + age, 1e9 + age))
    assert get(place("d")) is not None  # used now
    assert [e.path.name for e in entries()] == ["c", "b", "a", "d"]
    size = entries()[0].size
    assert [e.path.name for e in prune(2 * size)] == ["c", "b"]
    assert sorted(p.name for p in place().parent.iterdir()) == ["a", "d"]
    assert len(clear()) == 2
    assert entries() == []


def test_the_bound_holds_while_entries_come_but_never_against_the_new_one(monkeypatch):
    monkeypatch.setenv("CTINV_CACHE_SIZE", "3KB")
    for number in range(5):
        put("x" * 1000, name=str(number))
        os.utime(place(str(number)), (1e9 + number,) * 2)
        assert sum(e.size for e in entries()) <= 3000
        assert get(place(str(number))) is not None
    put("x" * 9000, name="large", room="vaes")
    assert [e.path.name for e in entries()] == ["large"]


def test_a_bound_that_is_no_amount_is_told_and_does_no_harm(monkeypatch):
    monkeypatch.setenv("CTINV_CACHE_SIZE", "much")
    with pytest.raises(CtinvError, match="much"):
        cache_limit()
    with pytest.warns(CacheWarning, match="much"):
        put()


def test_drafts_of_the_dead_go_those_of_the_living_stay():
    put()
    for draft, written in ((".others.1-a.part", time.time()), (".killed.2-b.part", 1e9)):
        (place().parent / draft).mkdir()
        os.utime(place().parent / draft, (written, written))
    prune()
    assert sorted(p.name for p in place().parent.iterdir()) == [".others.1-a.part", "entry"]


def test_a_clock_that_was_turned_back_removes_nothing_in_use(monkeypatch):
    put()
    (place().parent / ".others.1-a.part").mkdir()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert prune() == []
    assert get(place()) == "text"
    put("second", name="second")
    assert get(place("second")) == "second"
    assert (place().parent / ".others.1-a.part").is_dir()


FAULTS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "forbidden": errno.EACCES, "broken": errno.EIO}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["mkdir", "write", "sums", "rename", "chmod"])
def test_a_disk_that_fails_is_done_without(monkeypatch, fault, where):
    def fail(*_, **__):
        raise OSError(FAULTS[fault], os.strerror(FAULTS[fault]))

    if where == "mkdir":
        monkeypatch.setattr("pathlib.Path.mkdir", fail)
    elif where == "rename":
        monkeypatch.setattr(os, "replace", fail)
    elif where == "chmod":
        monkeypatch.setattr(cache_module, "keep_private", fail)
    elif where == "sums":
        monkeypatch.setattr("ctinv.invariance.infra.store._hash", fail)
    with pytest.warns(CacheWarning, match=os.strerror(FAULTS[fault])) as warned:
        keep(place(), fail if where == "write" else lambda draft: (draft / "a.txt").write_text("a"))
    assert NOTE in str(warned[0].message)
    monkeypatch.undo()
    monkeypatch.setenv("CTINV_CACHE", str(place().parents[1]))
    assert not place().exists()
    assert not [p for p in cache_root().rglob("*.part")]


def test_a_cache_that_vanishes_is_made_again(root):
    put()
    shutil.rmtree(root)
    assert get(place()) is None
    assert get(put()) == "text"


def test_a_file_where_the_cache_should_be(root):
    root.write_text("")
    with pytest.warns(CacheWarning, match="cannot be used"):
        put()
    assert get(place()) is None
    assert entries() == prune() == clear() == []
    with pytest.warns(CacheWarning, match="cannot be used"), made_once(["key"]):
        pass


ONCE = """
import sys, time
from pathlib import Path
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.store import fetch, keep, made_once

log, folder = Path(sys.argv[1]), cache_root() / "explainers" / "shared"
with made_once(["b", "a"] if int(sys.argv[2]) % 2 else ["a", "b"]):
    if fetch(folder, lambda entry: (entry / "a.txt").read_text()) is None:
        with log.open("a") as file:
            file.write("made\\n")
        keep(folder, lambda draft: (draft / "a.txt").write_text("a"))
"""


def test_of_several_processes_one_makes_it(tmp_path):
    log = tmp_path / "log"
    running = [subprocess.Popen([sys.executable, "-c", ONCE, str(log), str(n)]) for n in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    assert log.read_text() == "made\n"


SOAK = """
import sys, time, random
from ctinv.invariance.infra.cache import cache_root
from ctinv.invariance.infra.store import fetch, keep, prune

rng, until = random.Random(int(sys.argv[1])), time.monotonic() + float(sys.argv[2])
turns = 0
while turns < 15 or time.monotonic() < until:
    turns += 1
    name = str(rng.randrange(6))
    folder = cache_root() / rng.choice(["explainers", "vaes"]) / name
    def write(draft):
        for part in "abc":
            (draft / part).write_text(name * 2000)
    def read(entry):
        texts = {(entry / part).read_text() for part in "abc"}
        assert texts == {name * 2000}, "half an entry"
        return True
    if fetch(folder, read) is None:
        keep(folder, write)
    if rng.random() < 0.2:
        prune(rng.randrange(5000, 60000))
print(turns)
"""


@pytest.mark.parametrize(("processes", "seconds"), [(3, 0), pytest.param(8, 1800, marks=pytest.mark.slow)])
def test_processes_share_a_bounded_cache(processes, seconds, monkeypatch):
    """No entry is ever half there, and nobody is told of damage."""
    code = [sys.executable, "-W", "error", "-c", SOAK]
    running = [
        subprocess.Popen([*code, str(n), str(seconds)], stderr=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    told = [process.communicate()[1] for process in running]
    assert told == [""] * processes
    assert [process.returncode for process in running] == [0] * processes
