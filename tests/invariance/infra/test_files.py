"""Files and folders appear whole or not at all."""

import os

import pytest
from ctinv.adapters.errors import CtinvError
from ctinv.invariance.infra.files import replacing, write_files


def test_files_are_renamed_in_the_order_given(tmp_path, monkeypatch):
    order, rename = [], os.replace

    def spy(source, target):
        order.append(os.path.basename(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", spy)
    write_files(tmp_path, {"c": b"1", "a": b"2", "b": b"3"})
    assert order == ["c", "a", "b"]
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == {"c": b"1", "a": b"2", "b": b"3"}


@pytest.mark.parametrize("folder", [False, True])
def test_a_body_that_fails_leaves_the_old_one(tmp_path, folder):
    target = tmp_path / "result"
    target.mkdir() if folder else target.write_bytes(b"old")

    def fail():
        with replacing(target) as draft:
            if folder:
                draft.mkdir()
                (draft / "half").write_bytes(b"new")
            else:
                draft.write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == ["result"]
    assert list(target.iterdir()) == [] if folder else target.read_bytes() == b"old"


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CtinvError, match="no space left on device; name another folder"):
        write_files(tmp_path, {"a": b"1", "b": b"2"})
    assert os.listdir(tmp_path) == []


def test_what_is_written_follows_the_umask(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_files(tmp_path, {"ours": b"data"})
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_the_last_file_never_stands_beside_those_of_another_answer(tmp_path, monkeypatch, broken):
    """Killed between two renames, a folder must not pass for a finished one."""
    names = ["a", "b", "result"]
    write_files(tmp_path, dict.fromkeys(names, b"old"))
    rename, count = os.replace, 0

    class Killed(BaseException):
        pass

    def fail(source, target):
        nonlocal count
        count += 1
        if count > broken:
            raise Killed
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Killed):
        write_files(tmp_path, dict.fromkeys(names, b"new"))
    assert not (tmp_path / "result").exists()


def test_one_file_alone_is_replaced_in_one_stroke(tmp_path, monkeypatch):
    write_files(tmp_path, {"page": b"old"})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(CtinvError):
        write_files(tmp_path, {"page": b"new"})
    assert (tmp_path / "page").read_bytes() == b"old"
