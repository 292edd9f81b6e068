"""Every use of what Lightning, wandb, wandb-workspaces, Hydra or TensorBoard do not promise to keep, and of no other
library's.

Each function names what it touches and why nothing public will do. Each has a test that fails when an upgrade renames
it or gives it another meaning, so that an upgrade is mended here. Nothing heavy is imported before it is needed.

Of torch, `Module._compiled_call_impl` is used here (`Module.compile` sets it, and nothing public undoes that);
`torch.nn.modules.batchnorm._BatchNorm` is used where it is needed (the common class of all BatchNorms), and
so are the `torch._foreach_*` functions.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from lightning.fabric.strategies import Strategy as FabricStrategy
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
    from lightning.pytorch.strategies import Strategy
    from omegaconf import DictConfig
    from torch import nn


def add_callbacks(trainer: "Trainer", callbacks: Iterable["Callback"]) -> None:
    """Appends callbacks to those that a trainer was made with, in this order, last.

    `Trainer.callbacks` is a list that only the callback connector is meant to write. A run knows its callbacks after
    its trainer: a trainer says first on how many processes the run depends.
    """
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]


def load_training_batches(trainer: "Trainer") -> None:
    """Makes the trainer ask for its training batches now, if it has not.

    `fit_loop.setup_data`: `Trainer.num_training_batches` is not known before it, and a schedule of steps is made in
    `configure_optimizers`, which comes earlier.
    """
    trainer.fit_loop.setup_data()


def set_epoch_length(trainer: "Trainer", batches: int) -> None:
    """Has the next epoch, or the one that a checkpoint goes on with, end after so many batches.

    `fit_loop.max_batches`, and `length` of its `_data_fetcher`: both are taken from the loader once, and a fetcher that
    goes on from a checkpoint does not ask again. Loaders that are made anew for each epoch could not be resumed.
    """
    loop = trainer.fit_loop
    loop.max_batches = batches
    if loop._data_fetcher is not None:
        loop._data_fetcher.length = batches


def limit_steps(trainer: "Trainer", steps: int) -> None:
    """Has a trainer end after so many optimizer steps, whatever epochs and steps it was made with.

    `fit_loop.epoch_loop.max_steps` and `fit_loop.max_epochs`: the public ones cannot be set, and how many steps make
    a budget is known only when the data are.
    """
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.fit_loop.max_epochs = -1


def show_metrics(trainer: "Trainer", means: Mapping[str, float]) -> None:
    """Puts values where callbacks that watch a number find them.

    `Trainer.callback_metrics` is the connector's own dictionary, and only `self.log` is meant to fill it: that would
    reduce what is reduced already, and ask each step for values that the device has not computed yet.
    """
    import torch

    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in means.items()})


def compile_in_place(module: "nn.Module", mode: str | None) -> None:
    """`module.compile(mode=mode)`; None has the module called again as it was written."""
    if mode is None:
        module._compiled_call_impl = None
    else:
        module.compile(mode=mode)


@contextlib.contextmanager
def not_compiled(module: "nn.Module") -> Iterator[None]:
    """Has a module and its parts called as they were written; afterwards what was compiled is what it was."""
    compiled = [(part, part._compiled_call_impl) for part in module.modules()]
    for part, _ in compiled:
        part._compiled_call_impl = None
    try:
        yield
    finally:
        for part, call in compiled:
            part._compiled_call_impl = call


def let_trace(module: "nn.Module") -> None:
    """Has `torch.jit.trace` read all properties of the Lightning modules in a module, of which `trainer` raises where
    there is none.

    `LightningModule._jit_is_scripting`, which Lightning sets for all modules while its own `to_torchscript` is at work.
    """
    for part in module.modules():
        if hasattr(type(part), "_jit_is_scripting"):
            part._jit_is_scripting = True  # type: ignore[assignment]


def limit_waiting(strategy: "FabricStrategy | Strategy", seconds: float) -> None:
    """Has processes that do not meet within so many seconds fail, where the strategy is one of several processes.

    `_timeout` of Lightning's strategies: they take it as an argument, but only where they are made by hand, and which
    one a trainer needs is what Lightning finds out.
    """
    if hasattr(strategy, "_timeout"):
        strategy._timeout = timedelta(seconds=seconds)


def silence_sigterm_broadcast(trainer: "Trainer") -> None:
    """Spares several processes a broadcast before each batch, after which a GPU is waited for.

    `fit_loop.epoch_loop._broadcast_sigterm_tensor` tells all processes of a SIGTERM to the first. `StopTogether` does,
    of one to any, together with what else they tell each other.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]


def _nothing() -> None:
    pass


def wandb_arguments(logger: "WandbLogger") -> dict[str, Any]:
    """What a logger will call `wandb.init` with; may be changed until its run has begun.

    `WandbLogger._wandb_init`: id, group and mode of a run are known after its logger was made from the config.
    """
    return logger._wandb_init


def wandb_run(logger: "WandbLogger") -> Any | None:
    """The run that a logger has begun, else None.

    `WandbLogger._experiment`: its `experiment` would begin one.
    """
    return logger._experiment


def use_new_artifact(run: Any, artifact: Any) -> None:
    """Has a wandb run log an artifact and name it as its input.

    `Run._log_artifact(use_after_commit=True)`, which `Run.use_artifact` calls: that refuses where a run is offline, and
    waits for the server without an end.
    """
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)


def wandb_settings_of_the_past() -> dict[str, Any]:
    """Settings with which `wandb.init` says nothing of this machine, process and hour: what is logged was made before,
    and elsewhere.

    `x_...`: wandb calls these experimental, and has no others for it.
    """
    experimental = {f"x_disable_{what}": True for what in ("meta", "stats", "machine_info")}
    return {**experimental, "x_save_requirements": False, "console": "off", "disable_git": True, "save_code": False}


def specification(view: Any) -> dict[str, Any]:
    """What would be sent of a workspace or report of `wandb-workspaces`, without sending it.

    `_to_model`: `save` makes it and sends it at once.
    """
    return view._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)


def take_the_place_of(view: Any, kept: Mapping[str, str]) -> None:
    """Has `save` of a workspace or report change the one that was saved before.

    `_internal_id` and `_internal_name` of a workspace: only one that was read from its address has them.

    Args:
        kept: see `place_of`; empty for none.
    """
    for name, value in kept.items():
        if hasattr(view, name):
            setattr(view, name, value)


def place_of(view: Any) -> dict[str, str]:
    """What wandb knows a saved workspace or report by."""
    names = ("id", "_internal_id", "_internal_name")
    return {name: value for name in names if isinstance(value := getattr(view, name, None), str) and value}


def forget_from(logger: "TensorBoardLogger", step: int) -> None:
    """Has TensorBoard forget what event files in the same folder hold from this step on.

    `tensorboard.compat.proto.event_pb2` and `SummaryWriter.file_writer`: `SummaryWriter(purge_step=...)` writes the
    same event, but Lightning's logger makes its writer before the step is known.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    start = Event(session_log=SessionLog(status=SessionLog.START))
    logger.experiment.file_writer.add_event(start, step)


def group_options(group: str) -> list[str] | None:
    """Names of the options of a config group, where a Hydra application or `configs_in` runs; else None.

    `GlobalHydra` and its config loader: `compose` gives whole configs only.
    """
    from hydra.core.global_hydra import GlobalHydra

    running = GlobalHydra.instance()
    return running.config_loader().get_group_options(group) if running.is_initialized() else None


def load_option(group: str, name: str) -> "DictConfig":
    """An option of a config group by itself, composed, its interpolations unresolved.

    `GlobalHydra` and `ConfigLoader.load_configuration`: `compose` resolves defaults from the top only, and would have
    this option's keys checked against those of an application.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration(f"{group}/{name}", overrides=[], run_mode=RunMode.RUN)
    return cast("DictConfig", config[group])


def jobs_of_sweeper(sweeper: "DictConfig", overrides: Sequence[str]) -> list[tuple[str, ...]] | None:
    """Overrides of each job of a multirun, where a Hydra application or `configs_in` runs; None where this is not
    Hydra's basic sweeper.

    `BasicSweeper.split_arguments` and `GlobalHydra`: the sweeper itself composes each job, which takes long, and then
    launches them.

    Args:
        overrides: of the command line but for those of Hydra's own settings.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if sweeper._target_ != f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}":
        return None
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    batches = BasicSweeper.split_arguments(parser.parse_overrides([*params, *overrides]), None)
    return [tuple(job) for batch in batches for job in batch]


def forget_application() -> None:
    """Lets another Hydra application start in this process.

    `GlobalHydra.clear`: Hydra takes it that a process has one application.
    """
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()


def unknown_override(error: Exception) -> tuple[str, "DictConfig | None"] | None:
    """The key that an override names though the config lacks it, and the node that lacks it; None for other errors.

    The text of Hydra's message and `parent_node` of OmegaConf's error, its cause: neither says it in another way. The
    node is None where OmegaConf does not know it.
    """
    from hydra.errors import HydraException
    from omegaconf import DictConfig

    text = str(error)
    if not isinstance(error, HydraException) or "Could not override '" not in text:
        return None
    parent = getattr(error.__cause__, "parent_node", None)
    key = text.partition("Could not override '")[2].partition("'")[0]
    return key, parent if isinstance(parent, DictConfig) else None


def root_of(node: "DictConfig") -> Any:
    """The whole config that a node belongs to.

    `_get_root` of OmegaConf's nodes: the errors that Hydra raises hold a node, and no config.
    """
    return node._get_root()
