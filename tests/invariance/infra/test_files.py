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
