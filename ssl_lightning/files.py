"""Files appear whole or not at all."""

import contextlib
import errno
import glob
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import reason


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to `path` when the block ends well, removed when it does not.

    What has its name is on the disk, and survives a power cut.

    Raises:
        UserError: it cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        if temporary is not None and not _is_of(error, temporary):
            raise  # of something else that the block uses
        raise UserError(f"cannot write {path}: {reason(error)}{_left(path)}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _is_of(error: OSError, temporary: Path) -> bool:
    """Whether it comes of writing this file. What a stream raises names no file; where NumPy's does, not even a number
    is given."""
    if error.filename is not None:
        return os.fspath(error.filename) == os.fspath(temporary)
    return error.errno is not None or "written" in str(error)


def _left(path: Path) -> str:
    return f" What was in {path.name} before is still there." if path.is_file() else ""


def _sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk. Some file systems sync no folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Deletes what writers that were killed have left in or below a folder. Nobody may be writing there but those who
    hold the lock of what they write (`locked`), which is left to them."""
    for temporary in folder.rglob(".*.part"):
        lock = _lock_of(temporary.with_name(temporary.name[1:].rsplit(".", 2)[0]))
        with contextlib.suppress(Timeout), _taken(lock):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _taken(lock: FileLock) -> Iterator[None]:
    """Raises Timeout where somebody holds it. No lock is made where there is none."""
    if not os.path.exists(lock.lock_file):
        yield
        return
    with lock.acquire(timeout=0):
        yield


def _lock_of(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))


def read_text(path: Path, limit: int = 2**28, errors: str = "strict") -> str:
    """The text of a regular file: reading a pipe or a device might never end.

    Args:
        limit: bytes; a file of ours is never larger.
        errors: what becomes of bytes that are not UTF-8, as of `bytes.decode`.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is something else, or too large, or not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit / 2**20:.0f} MiB")
    return content.decode(errors=errors)


def inside(path: str, folder: str) -> bool:
    """Whether a path is that of the folder or leads into it; both absolute, without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


SAFE_NAME = r"[^\W_]([\w.+=@'-]*[\w+=@'-])?"
"""Expression of what may become a part of names of files."""


def safe_name(name: str, key: str) -> str:
    """A name that becomes a part of names of files.

    Raises:
        UserError: it is none, would lead elsewhere, or is one that some file systems refuse.
    """
    if not re.fullmatch(SAFE_NAME, name) or len(os.fsencode(name)) > 100:
        shown = name if len(name) <= 100 else f"{name[:50]}..."
        raise UserError(
            f"{key} is {shown!r}, which becomes a part of the names of folders. Give a letter or digit, then letters, "
            "digits and any of . _ + = @ ' -, no . at the end, at most 100 (50 beyond ASCII)."
        )
    return name


RESERVED = {
    "encoders": "ssl-evaluate keeps what it makes of encoders that belong to no run",
    "rankings": "ssl-select keeps its comparisons",
    "report": "ssl-report keeps the report on all sweeps",
    "theory": "ssl-theory keeps its pictures",
}
"""Names below `paths.runs` that are no sweep's, and what is there."""


def folder_of_sweep(runs: str, name: str) -> Path:
    """
    Raises:
        UserError: the name is none for a folder, or that of another folder of ours.
    """
    if (what := RESERVED.get(name.lower())) is not None:
        raise UserError(f"sweep is {name!r}, the folder of paths.runs where {what}. Choose another name.")
    return Path(runs) / safe_name(name, "sweep")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        # Messages may hold names that are not UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when the block ends, and not at all when it fails."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`: one process at a time builds it, and tidies up after killed ones.

    Where `path` is there, in a folder that may only be read, nobody builds it and nothing is locked.
    """
    lock, held = _lock_of(path), True
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"Waiting for another process, which is making {path.name}.", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        if not (path.exists() and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)):
            raise UserError(f"cannot write into {path.parent}: {reason(error)}") from error
        held = False
    try:
        unfinished = path.parent.glob(f".{glob.escape(path.name)}.*.part") if held else ()
        for temporary in unfinished:
            temporary.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
