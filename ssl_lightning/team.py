"""Processes that make one thing together: a ranking, or features."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_lightning.data.readers import locked
from ssl_lightning.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class Team:
    """`size` processes with a common file system, of which this is number `rank`. `barrier` waits for all."""

    rank: int = 0
    size: int = 1
    barrier: Callable[[], None] = lambda: None

    def share(self, total: int, unit: int = 1) -> range:
        """This process's contiguous share of 0 … total − 1; its ends are multiples of `unit`, or the total."""
        units = -(-total // unit)
        start, stop = (min(total, unit * (units * r // self.size)) for r in (self.rank, self.rank + 1))
        return range(start, stop)

    @contextlib.contextmanager
    def building(self, path: Path) -> Iterator[bool]:
        """Whether `path` is missing, with nobody outside of the team making it meanwhile."""
        with locked(path) if self.rank == 0 else contextlib.nullcontext():
            self.barrier()
            missing = not path.exists()
            self.barrier()
            yield missing
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
        if self.rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
            _reserve(path, array.nbytes)
        self.barrier()
        return np.lib.format.open_memmap(path, "r+")


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


ALONE = Team()


def fabric_of(trainer: Mapping[str, Any]) -> "Fabric | None":
    """What starts the processes that the settings of a trainer ask for; None where this one is all."""
    if trainer["strategy"] == "auto" and trainer["devices"] == 1 and trainer["num_nodes"] == 1:
        return None
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    from ssl_lightning.training import quiet, refuse_in_multirun

    quiet()
    settings = {key: trainer[key] for key in ("accelerator", "strategy", "devices", "num_nodes")}
    if settings["strategy"] == "ddp":  # whose barriers would give up where another job makes the same for an hour
        settings["strategy"] = DDPStrategy(timeout=timedelta(days=7))
    fabric = Fabric(**settings)
    refuse_in_multirun(fabric.world_size)
    return fabric


def team_of(fabric: "Fabric | None") -> Team:
    """Starts the processes. Each goes on from here."""
    if fabric is None:
        return ALONE
    fabric.launch()
    return Team(fabric.global_rank, fabric.world_size, fabric.barrier)
