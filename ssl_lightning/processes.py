"""Processes that make one thing together: a ranking, or features."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ssl_lightning.errors import UserError
from ssl_lightning.files import locked

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds that a process waits for another to meet it: one that has died or hangs is not waited for without end."""
HEARTBEAT = 30.0
"""Seconds after which the first process, where it works alone, tells the others that it is still at it."""


@dataclass(frozen=True)
class ProcessGroup:
    """`size` processes with a common file system.

    Args:
        rank: which of them this is.
        meet: waits for all.
        broadcast: gives what the first process calls it with, to all.
    """

    rank: int = 0
    size: int = 1
    meet: Callable[[], None] = lambda: None
    broadcast: Callable[[Any], Any] = lambda value: value

    def barrier(self) -> None:
        """Waits for all.

        Raises:
            UserError: one of them has ended, or does not come for `PATIENCE` seconds.
        """
        with _together():
            self.meet()

    def by_first(self, do: Callable[[], T]) -> T:
        """What `do` returns in the first process, which alone calls it, however long it takes. Its error ends all."""
        if self.size == 1:
            return do()
        if self.rank > 0:
            while (told := self._tell())[0] == "waits":
                pass
            if told[0] == "failed":
                error = UserError("the first process has failed")
                error.reported = True  # type: ignore[attr-defined]  # by the first process
                raise error
            return told[1]
        try:
            with self._heartbeat():
                result = do()
        except BaseException:
            with contextlib.suppress(UserError):  # nobody may be left to be told
                self._tell("failed")
            raise
        self._tell("done", result)
        return result

    def _tell(self, state: str = "", result: Any = None) -> tuple[str, Any]:
        with _together():
            return self.broadcast((state, result))

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Meanwhile, tells the others every so often that they are to wait: each of their waits is short."""
        over, device = threading.Event(), torch.cuda.current_device() if torch.cuda.is_initialized() else None

        def beat() -> None:
            if device is not None:
                torch.cuda.set_device(device)
            with contextlib.suppress(UserError):  # the next meeting raises it too
                while not over.wait(HEARTBEAT):
                    self._tell("waits")

        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()

    def share(self, total: int, unit: int = 1) -> range:
        """This process's contiguous share of 0 … total − 1; its ends are multiples of `unit`, or the total."""
        units = -(-total // unit)
        start, stop = (min(total, unit * (units * r // self.size)) for r in (self.rank, self.rank + 1))
        return range(start, stop)

    @contextlib.contextmanager
    def building(self, path: Path, whole: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Whether `path` is missing, with nobody outside of the processes making it meanwhile.

        Args:
            whole: asked in the first process where it is there, for what may be damaged: what is not counts as missing.
        """
        with contextlib.ExitStack() as held:

            def look() -> bool:
                held.enter_context(locked(path))
                return not path.exists() if whole is None else not whole()

            yield self.by_first(look)
            self.barrier()

    def write(self, array: np.ndarray, start: int, rows: np.ndarray) -> None:
        """Sets rows from `start` on. By ordinary writing where others read them: a mapped page that two nodes change
        would be that of one of them."""
        if self.size == 1:
            array[start : start + len(rows)] = rows
            return
        assert isinstance(array, np.memmap)
        with open(str(array.filename), "r+b") as file:
            file.seek(array.offset + start * array.strides[0])
            file.write(np.ascontiguousarray(rows, array.dtype).tobytes())

    def array(self, path: Path | None, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array that all processes write to: a memory-mapped .npy file at `path`, made anew.

        A process alone may give no path and gets an ordinary array.
        """
        if path is None:
            return np.empty(shape, dtype)

        def make() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
            _reserve(path, array.nbytes)

        self.by_first(make)
        return np.lib.format.open_memmap(path, "r+")


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What processes do with one another, with a message that says what it means when torch gives up."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            f"another process of this command has ended, or was waited for in vain for {PATIENCE / 60:.0f} minutes "
            f"({str(error).partition('. ')[0]}). What it has printed says why."
        ) from error


def owns_cores(cores: int) -> bool:
    """Whether the cores that this process may use are those of a task of SLURM's, which binds each task to its own.
    Processes that we start inherit all cores, and share them."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    return SLURMEnvironment.detect() and cores < int(os.environ.get("SLURM_CPUS_ON_NODE", "0"))


def share_buffers(module: torch.nn.Module, processes: ProcessGroup) -> None:
    """All processes take the buffers of the first, which a checkpoint holds: without synchronised statistics, each
    BatchNorm has those of its own part of the batches."""
    if processes.size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer, 0)


def _reserve(path: Path, size: int) -> None:
    """Without this, a disk that is full would end the process when a page is written."""
    try:
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"cannot write {size / 2**30:.1f} GiB to {path}: {error.strerror or error}. "
            "Free some space or choose another paths.cache."
        ) from error


ALONE = ProcessGroup()
