"""Several processes use one cache at a time: nobody reads or removes what another one moves."""

import subprocess
import sys
from pathlib import Path

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.cache import cache_root, held, publish

# Each process replaces, reads and thins out the same few entries, and says what it read.
WORK = """
import shutil
import sys

from pathlib import Path
from ctinv.invariance.infra.cache import cache_root, held, publish

room, own = cache_root() / "room", sys.argv[1]
def write(folder):
    for name in ("a", "b", "c"):
        (folder / name).write_text(own)
for turn in range(40):
    entry = room / str(turn % 3)
    publish(entry, write)
    with held(entry):
        if entry.is_dir():
            texts = {file.name: file.read_text() for file in entry.iterdir()}
            if sorted(texts) != ["a", "b", "c"] or len(set(texts.values())) != 1:
                sys.exit(f"half an entry: {texts}")
            entry.touch()
    entries = sorted(room.glob("[0-9]"), key=lambda e: e.name)
    with held(entry):
        if len(entries) == 3:
            shutil.rmtree(entries[0], ignore_errors=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "cache"))


def write(text):
    return lambda folder: (folder / "file").write_text(text)


def test_processes_share_a_cache():
    running = [
        subprocess.Popen([sys.executable, "-c", WORK, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(3)
    ]
    told = [process.communicate()[1] for process in running]
    assert [(process.returncode, text) for process, text in zip(running, told, strict=True)] == [(0, "")] * 3
    left = sorted(entry.name for entry in (cache_root() / "room").iterdir())
    assert left
    assert set(left) <= set("012")


def test_another_process_waits_until_the_entry_is_read(tmp_path):
    entry = cache_root() / "room" / "entry"
    publish(entry, write("old"))
    code = (
        "import sys; from pathlib import Path; from ctinv.invariance.infra.cache import publish\n"
        "def write(folder):\n    (folder / 'file').write_text('new'); print('written', flush=True)\n"
        "publish(Path(sys.argv[1]), write)"
    )
    with held(entry):
        other = subprocess.Popen([sys.executable, "-c", code, str(entry)], stdout=subprocess.PIPE, text=True)
        assert other.stdout.readline() == "written\n"
        assert other.poll() is None, "it must not move its entry in while this one is read"
        assert (entry / "file").read_text() == "old"
    other.communicate()
    assert other.returncode == 0
    assert (entry / "file").read_text() == "new"


def test_what_fails_leaves_the_old_entry():
    entry = cache_root() / "room" / "entry"
    publish(entry, write("old"))

    def fail(folder):
        write("half")(folder)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        publish(entry, fail)
    assert [e.name for e in entry.parent.iterdir()] == ["entry"]
    assert (entry / "file").read_text() == "old"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CtinvError, match=r"file cannot be written \(.*\); choose another place"):
        publish(tmp_path / "file" / "entry", write("new"))


def test_a_cache_that_cannot_be_written_can_be_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CTINV_CACHE", str(tmp_path / "file"))
    with held(Path("room") / "entry"):
        pass
