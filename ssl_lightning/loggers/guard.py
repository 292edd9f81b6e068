"""A logger that fails costs what it would have shown, and nothing else."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from ssl_lightning.errors import warn
from ssl_lightning.loggers.wandb import end_wandb

T = TypeVar("T")

_CALLED = ("log_metrics", "log_hyperparams", "log_graph", "save", "rewind", "after_save_checkpoint", "finalize")


def guard(logger: Logger) -> None:
    """Whatever fails in the logger from now on costs one line, and it is not called again: training goes on without.

    Its class becomes one of the same name below its own, so that callbacks find it as what it is.
    """
    kind = type(logger)
    guarded: dict[str, Any] = {name: _guarded(getattr(kind, name)) for name in _CALLED if hasattr(kind, name)}
    if isinstance(experiment := getattr(kind, "experiment", None), property):
        guarded["experiment"] = property(_guarded(experiment.__get__, DummyLogger().experiment))
    logger.__class__ = type(kind.__name__, (kind,), guarded)


def attempt(logger: Logger, do: Callable[[], T], otherwise: T) -> T:
    """What `do` returns; `otherwise` where it fails, or something of the logger's has before."""
    if not has_failed(logger):
        try:
            return do()
        except Exception as error:
            if not has_failed(logger):  # it may have, within
                _leave(logger, error)
    return otherwise


def has_failed(logger: Logger) -> bool:
    return bool(vars(logger).get("failed"))


def _leave(logger: Logger, error: Exception) -> None:
    vars(logger)["failed"] = True
    warn(type(logger).__name__, error)
    if isinstance(logger, WandbLogger):
        end_wandb()


def _guarded(method: Callable[..., Any], otherwise: Any = None) -> Callable[..., Any]:
    @functools.wraps(method)
    def guarded(logger: Logger, *args: Any, **kwargs: Any) -> Any:
        return attempt(logger, lambda: method(logger, *args, **kwargs), otherwise)

    return guarded
