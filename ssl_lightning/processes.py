"""Processes that make one thing together: a ranking, or features."""

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from ssl_lightning.errors import UserError
from ssl_lightning.files import locked
from ssl_lightning.launchers.job import started_by_command
from ssl_lightning.lightning_internals import limit_waiting

if TYPE_CHECKING:
    from lightning.fabric import Fabric

import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

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
    def building(self, path: Path) -> Iterator[bool]:
        """Whether `path` is missing, with nobody outside of the processes making it meanwhile."""
        with contextlib.ExitStack() as held:

            def look() -> bool:
                held.enter_context(locked(path))
                return not path.exists()

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


def asks_for_one(trainer: Launch) -> bool:
    """Whether this process is all, whatever variables of a launcher are left in its environment."""
    return trainer.strategy == "auto" and trainer.devices == 1 and trainer.num_nodes == 1


def fabric_of(trainer: Launch) -> "Fabric | None":
    """What starts the processes that the settings of a trainer ask for; None where this one is all."""
    if asks_for_one(trainer):
        return None
    from lightning.fabric import Fabric

    quiet()
    fabric = Fabric(
        accelerator=trainer.accelerator,
        strategy=trainer.strategy,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
    )
    limit_waiting(fabric.strategy, PATIENCE)
    settle_rank(fabric.strategy, fabric.world_size)
    refuse_in_multirun(fabric.world_size)
    return fabric


def start_processes(fabric: "Fabric | None") -> ProcessGroup:
    """Starts the processes. Each goes on from here."""
    if fabric is None:
        return ALONE
    fabric.launch()
    return ProcessGroup(fabric.global_rank, fabric.world_size, fabric.barrier, fabric.broadcast)


def settle_rank(strategy: Any, size: int) -> None:
    """A process that works alone logs and speaks, though Lightning takes `RANK` or `SLURM_PROCID` for its rank. One of
    several that others are to have started says so, since it waits for them.

    Args:
        strategy: of a trainer or a Fabric of `size` processes.
    """
    if size == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        return
    environment: ClusterEnvironment = strategy.cluster_environment
    if not environment.creates_processes_externally or started_by_command():
        return
    known = ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS", "SLURM_PROCID")
    if not isinstance(environment, TorchElasticEnvironment) or environment.global_rank() == 0:  # which is sure of them
        variables = ", ".join(f"{name}={os.environ[name]}" for name in known if name in os.environ)
        print(
            f"{type(environment).__name__.removesuffix('Environment')} is to have started {size} processes, of which "
            f"this waits for the others ({variables}). If it has not, unset these variables.",
            flush=True,
        )


@contextlib.contextmanager
def as_first() -> Iterator[None]:
    """What is done meanwhile logs and speaks as that of a first process, also where this is another of a group."""
    former, rank_zero_only.rank = rank_zero_only.rank, 0  # type: ignore[attr-defined]
    try:
        yield
    finally:
        rank_zero_only.rank = former  # type: ignore[attr-defined]


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
