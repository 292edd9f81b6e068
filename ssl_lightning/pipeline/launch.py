"""How the processes of a command start, and what each of them takes itself for."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import started_by_command
from ssl_lightning.lightning_internals import limit_waiting
from ssl_lightning.processes import ALONE, PATIENCE, ProcessGroup

if TYPE_CHECKING:
    from lightning.fabric import Fabric


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
    settle_rank(fabric.strategy, fabric.world_size, trainer.num_nodes)
    refuse_in_multirun(fabric.world_size)
    return fabric


def start_processes(fabric: "Fabric | None") -> ProcessGroup:
    """Starts the processes. Each goes on from here."""
    if fabric is None:
        return ALONE
    fabric.launch()
    return ProcessGroup(fabric.global_rank, fabric.world_size, fabric.barrier, fabric.broadcast)


def settle_rank(strategy: Any, size: int, nodes: int) -> None:
    """A process that works alone logs and speaks, though Lightning takes `RANK` or `SLURM_PROCID` for its rank. One of
    several that others are to have started says so, since it waits for them.

    Args:
        strategy: of a trainer or a Fabric of `size` processes.
        nodes: machines that these are on.

    Raises:
        UserError: there are several, and nothing says where they meet.
    """
    if size == 1:
        rank_zero_only.rank = 0  # type: ignore[attr-defined]
        return
    environment: ClusterEnvironment = strategy.cluster_environment
    if started_by_command():
        return
    if nodes > 1 and isinstance(environment, LightningEnvironment):
        _say_where_nodes_meet(environment, nodes)
    if not environment.creates_processes_externally:
        return
    known = ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "SLURM_NTASKS", "SLURM_PROCID")
    if not isinstance(environment, TorchElasticEnvironment) or environment.global_rank() == 0:  # which is sure of them
        variables = ", ".join(f"{name}={os.environ[name]}" for name in known if name in os.environ)
        print(
            f"{type(environment).__name__.removesuffix('Environment')} is to have started {size} processes, of which "
            f"this waits for the others ({variables}). If it has not, unset these variables.",
            flush=True,
        )


def _say_where_nodes_meet(environment: LightningEnvironment, nodes: int) -> None:
    """Where neither torchrun nor SLURM has started the processes, variables say so."""
    variables = "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"
    alternatives = (
        f"Start the command on each node by torchrun --nnodes={nodes} or SLURM's srun; or set there NODE_RANK, from 0 "
        f"to {nodes - 1}, and MASTER_ADDR and MASTER_PORT, which lead to node 0"
    )
    if lacking := [name for name in variables if not os.environ.get(name)]:
        raise UserError(
            f"trainer.num_nodes is {nodes}, but {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not set, "
            f"by which the nodes would find each other. {alternatives}."
        )
    node, address, port = (os.environ[name] for name in variables)
    if not (node.isdecimal() and int(node) < nodes):
        raise UserError(f"NODE_RANK is {node!r}, but trainer.num_nodes is {nodes}. {alternatives}.")
    if not port.isdecimal():
        raise UserError(f"MASTER_PORT is {port!r}, which is no number of a port. Choose one: MASTER_PORT=29500.")
    print(
        f"This is node {node} of {nodes} (NODE_RANK, from 0): it waits for the others, at {address}:{port} "
        "(MASTER_ADDR, MASTER_PORT). Start the same command on each.",
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
