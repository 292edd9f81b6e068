"""Files appear whole, under names that every file system takes; folders that may only be read are read."""

import errno
import os

import pytest
from filelock import FileLock

from ssl_lightning.errors import UserError
from ssl_lightning.files import locked, remove_unfinished, safe_name, write_text
from ssl_lightning.processes import ProcessGroup


@pytest.fixture
def read_only(monkeypatch):
    """No lock can be made, as on a file system that may only be read."""

    def acquire(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), self.lock_file)

    monkeypatch.setattr(FileLock, "acquire", acquire)


def test_what_is_there_needs_no_lock(tmp_path, read_only):
    product, unfinished = tmp_path / "ranking.npz", tmp_path / ".ranking.npz.1.part"
    product.touch()
    unfinished.touch()
    with locked(product):
        pass
    with ProcessGroup().building(product) as missing:
        assert not missing
    assert unfinished.exists()  # its writer may be on another machine


def test_what_is_missing_cannot_be_made_there(tmp_path, read_only):
    message = rf"cannot write into {tmp_path}: Read-only file system\. Choose a folder that can be written: paths\.runs"
    with pytest.raises(UserError, match=message), locked(tmp_path / "ranking.npz"):
        raise AssertionError("it went on")


def test_an_error_of_the_builder_is_its_own(tmp_path):
    with pytest.raises(PermissionError, match="mine"), locked(tmp_path / "ranking.npz"):
        raise PermissionError("mine")


@pytest.mark.parametrize("name", ["a/b", "..", "a.", "a..", "-a", "", "a b", "a" * 101, "é" * 51, "a\n", "\udcff"])
def test_names_that_some_file_systems_refuse(name):
    with pytest.raises(UserError, match=r"sweep is '.*', which becomes a part of the names of folders\. Give a letter"):
        safe_name(name, "sweep")


def test_text_may_hold_names_that_are_not_utf_8(tmp_path):
    write_text(tmp_path / "error.txt", "cannot read \udcff.png")
    assert (tmp_path / "error.txt").read_text() == "cannot read \\udcff.png"


def test_what_is_being_written_under_a_lock_is_not_taken_for_unfinished(tmp_path):
    evaluations = tmp_path / "evaluations"
    evaluations.mkdir()
    held, released, never = (evaluations / f".{name}.json.abcdefgh.part" for name in ("a-1", "b-2", "c-3"))
    with locked(evaluations / "b-2.json"):
        pass
    with locked(evaluations / "a-1.json"):
        for part in (held, released, never, tmp_path / ".results.json.abcdefgh.part"):
            part.touch()
        remove_unfinished(tmp_path)
        assert [*tmp_path.rglob("*.part")] == [held]
    remove_unfinished(tmp_path)
    assert not [*tmp_path.rglob("*.part")]
    assert not (evaluations / ".c-3.json.lock").exists()
