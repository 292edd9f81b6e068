"""A longer training goes on from a shorter one that is its beginning: `extend`."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.components import locate
from ssl_lightning.config.identity import changes_training
from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.optim.schedule import Schedule
from ssl_lightning.pipeline.parts import Parts
from ssl_lightning.runs.loading import whole_checkpoint
from ssl_lightning.runs.run import Run, find_runs, named_as_in


def beginning(config: Mapping[str, Any], parts: Parts, method: SSLMethod) -> Path | None:
    """The checkpoint of the longest finished run that this one is a continuation of, if there is one: a run of the same
    sweep that differs in nothing but trainer.max_epochs. Its rows of metrics become the first ones of this run; the
    last of them may be one that the longer training would not have written.

    Raises:
        UserError: a longer training of these settings differs from a shorter one from its first step on.
    """
    if reason := _depends_on_length(config, method):
        raise UserError(
            f"extend is true, but {reason}, so that a longer training differs from a shorter one. Train anew, with "
            "extend=false; or choose from the beginning what does not depend on it, as optimizer.schedule=constant."
        )
    runs = [run for run in find_runs([parts.run.folder.parent]) if run.done and _is_beginning(run, config, parts)]
    for run in sorted(runs, key=_epochs, reverse=True):
        checkpoint = whole_checkpoint(run)
        if checkpoint is None or not run.metrics_file.exists() or not _steps(run):
            _say(f"{run.id} is damaged, and left out")
        elif _steps(run) < 2 * _warmup(config, parts, method):
            _say(f"{run.id} is left out, as its warm-up was cut short, to half of it")
        else:
            _say(f"goes on from {run.id}")
            _take_rows(run, parts.run)
            return checkpoint
    _say(f"{parts.run.folder.parent} has no finished shorter run of these settings to go on from")
    return None


def _depends_on_length(config: Mapping[str, Any], method: SSLMethod) -> str:
    trainer, recipe = config["trainer"], method.recipe
    assert recipe is not None
    if trainer["max_steps"] != -1 or config["budget"] != "epochs":
        return "the training ends after a number of steps, which may be in the middle of an epoch"
    for name, schedule in {"lr": recipe.lr_schedule, **(recipe.schedules or {})}.items():
        if not (isinstance(schedule, Schedule) and schedule.shape == "constant"):
            return f"the schedule of {name} is made for trainer.max_epochs={trainer['max_epochs']}"
    if method.needs_length:
        return f"{type(method).__name__} changes something over the length of the training"
    for name, callback in config["callbacks"].items():
        if changes_training(locate(callback["_target_"])):
            return f"callbacks.{name} may depend on the length of the training"
    if config.get("selection"):
        return "selection may choose images by how much of the training is done"
    return "resolution grows over the length of the training" if config.get("resolution") else ""


def _is_beginning(run: Run, config: Mapping[str, Any], parts: Parts) -> bool:
    """Whether a run's name is that of this config with the length of that run."""
    epochs = _epochs(run)
    if not 0 < epochs < config["trainer"]["max_epochs"]:
        return False
    same = {**config, "trainer": {**config["trainer"], "max_epochs": epochs}}
    return named_as_in(run.folder.parent, parts.identify(same)).run_name == run.id


def _epochs(run: Run) -> int:
    """How many a run was to have; -1 where that is not known."""
    try:
        epochs = run.config()["trainer"]["max_epochs"]
    except (UserError, KeyError, TypeError):
        return -1
    return epochs if type(epochs) is int else -1


def _steps(run: Run) -> int:
    """How many a finished run has had; 0 where that is not known."""
    try:
        return run.results().get("planned_steps") or 0
    except UserError:
        return 0


def _warmup(config: Mapping[str, Any], parts: Parts, method: SSLMethod) -> float:
    """Optimizer steps of the longest one; at most half of a training."""
    assert method.recipe is not None
    epoch = parts.subset.size(len(parts.dataset.train().labels)) // config["batch_size"]
    schedules = [method.recipe.lr_schedule, *(method.recipe.schedules or {}).values()]
    return epoch * max(schedule.warmup_epochs for schedule in schedules if isinstance(schedule, Schedule))


@rank_zero_only
def _take_rows(shorter: Run, run: Run) -> None:
    with replacing(run.metrics_file) as temporary:
        shutil.copyfile(shorter.metrics_file, temporary)


@rank_zero_only
def _say(what: str) -> None:
    print(f"extend: {what}.", flush=True)
