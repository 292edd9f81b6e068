"""Files appear whole or not at all."""

import contextlib
import glob
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ssl_lightning.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, renamed to `path` when the block ends well, removed when it does not.

    What has its name is on the disk, and survives a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk, where the system can."""
    with contextlib.suppress(OSError):  # some network file systems sync no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Deletes what writers that were killed have left in or below a folder. Nobody may be writing there."""
    for temporary in folder.rglob(".*.part"):
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when the block ends, and not at all when it fails."""
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            yield file
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder."
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`: one process at a time builds it, and tidies up after killed ones."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"Waiting for another process, which is making {path.name}.", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot write into {path.parent}: {error.strerror or error}. Choose another folder."
        ) from error
    try:
        for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            unfinished.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
