"""Processes that make one thing together: a ranking, or features."""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ssl_lightning.errors import UserError
from ssl_lightning.files import locked

if TYPE_CHECKING:
    from lightning.fabric import Fabric

import torch
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment


@dataclass(frozen=True)
class ProcessGroup:
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
        """Whether `path` is missing, with nobody outside of the processes making it meanwhile."""
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


def share_buffers(module: "torch.nn.Module", processes: ProcessGroup) -> None:
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


@runtime_checkable
class Launch(Protocol):
    """The settings of a trainer that say which processes there are."""

    @property
    def accelerator(self) -> str: ...
    @property
    def devices(self) -> int | str | list[int]: ...
    @property
    def num_nodes(self) -> int: ...
    @property
    def strategy(self) -> str: ...


def fabric_of(trainer: Launch) -> "Fabric | None":
    """What starts the processes that the settings of a trainer ask for; None where this one is all."""
    if trainer.strategy == "auto" and trainer.devices == 1 and trainer.num_nodes == 1:
        return None
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import DDPStrategy

    quiet()
    # Its barriers would give up where another job makes the same for an hour.
    strategy = DDPStrategy(timeout=timedelta(days=7)) if trainer.strategy == "ddp" else trainer.strategy
    fabric = Fabric(
        accelerator=trainer.accelerator, strategy=strategy, devices=trainer.devices, num_nodes=trainer.num_nodes
    )
    refuse_in_multirun(fabric.world_size)
    return fabric


def start_processes(fabric: "Fabric | None") -> ProcessGroup:
    """Starts the processes. Each goes on from here."""
    if fabric is None:
        return ALONE
    fabric.launch()
    return ProcessGroup(fabric.global_rank, fabric.world_size, fabric.barrier)


def environments(alone: bool) -> list[ClusterEnvironment]:
    """Where Lightning's own choice of what started the processes is not ours."""
    if alone:
        return [LightningEnvironment()]
    if SLURMEnvironment.detect():  # it would resume from checkpoints of its own, outside of the run's folder
        return [SLURMEnvironment(auto_requeue=False)]
    return []


def refuse_in_multirun(processes: int) -> None:
    """A multirun calls its jobs in one process, which cannot start others for each of them; SLURM can."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if processes == 1 or SLURMEnvironment.detect():
        return
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            f"trainer.devices asks for {processes} processes a job, which a multirun in one process cannot "
            "start. Run each job as a command of its own: add hydra/launcher=pool. Or use trainer=auto."
        )


def quiet() -> None:
    """Only warnings that a user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint.*")  # as after trainer.max_time
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")  # a job of a pool is no task of SLURM's
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")  # the recorder logs at the end too


def solving_device(device: torch.device) -> torch.device:
    """Where probes are solved: on the CPU where a device has no float64, as Apple's."""
    return torch.device("cpu") if device.type == "mps" else device


def device_of(accelerator: str) -> torch.device:
    """The device that a trainer of this accelerator would use in its first process, or the CPU."""
    wanted = accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda") if wanted and torch.cuda.is_available() else torch.device("cpu")
