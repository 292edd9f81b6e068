"""Where a run's numbers go besides metrics.csv: wandb, TensorBoard, or any other logger of Lightning's."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from ssl_lightning.lightning_internals import wandb_arguments
from ssl_lightning.loggers.artifacts import Artifacts
from ssl_lightning.loggers.guard import attempt, guard
from ssl_lightning.loggers.tensorboard import TensorBoard, log_to_tensorboard
from ssl_lightning.loggers.wandb import Wandb, log_to_wandb
from ssl_lightning.loggers.wandb_run import wandb_arguments_of
from ssl_lightning.runs.run import Identity, Run


def introduce(
    loggers: Sequence[Logger], run: Run, identity: Identity, sweep: str, hyperparameters: Mapping[str, Any]
) -> None:
    """Tells loggers which run this is, before its first row. A resumed run keeps its id. None can end training.

    Args:
        hyperparameters: the resolved config, which wandb shows beside it.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            arguments = wandb_arguments(logger)
            chosen = {key: value for key, value in arguments.items() if value is not None}
            arguments.clear()  # without None, which wandb may take for a value
            told = wandb_arguments_of(run.id, identity, sweep, hyperparameters)
            tags = [*told["tags"], *(chosen.pop("tags", None) or ())]
            arguments |= told | {"resume": "allow"} | chosen | {"tags": list(dict.fromkeys(tags))}
        if isinstance(logger, Wandb):
            logger.metrics_file = run.metrics_file
        if isinstance(logger, TensorBoard):
            logger.folder = run.folder / "tensorboard"
        guard(logger)


def offline(loggers: Sequence[Logger], run: Run) -> list[Logger]:
    """Those that can be rehearsed with: what they write lies in the run's folder, and nothing is sent."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run.folder.mkdir(parents=True, exist_ok=True)
            wandb_arguments(logger).update({"mode": "offline", "dir": str(run.folder)})
    return [logger for logger in loggers if isinstance(logger, WandbLogger | TensorBoard)]


def log_results(
    loggers: Sequence[Logger],
    hyperparameters: Mapping[str, Any],
    results: Mapping[str, Any],
    figures: Mapping[str, Path],
    artifacts: Artifacts | None = None,
) -> list[Wandb]:
    """Results and figures to the loggers that show them, and an end to their runs: each job has its own.

    A logger that fails costs a line of warning: the results are in the run's folder by now.

    Returns:
        those whose server has the whole run.
    """
    taken = []
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            if attempt(logger, partial(log_to_wandb, logger, results, figures, artifacts), False) and isinstance(
                logger, Wandb
            ):
                taken.append(logger)
        elif isinstance(logger, TensorBoardLogger):
            attempt(logger, partial(log_to_tensorboard, logger, hyperparameters, results, figures), None)
    return taken
