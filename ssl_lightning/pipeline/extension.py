"""A longer training goes on from a shorter one that is its beginning: `extend`."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.optim.schedule import Schedule
from ssl_lightning.pipeline.parts import Parts
from ssl_lightning.runs.loading import checkpoint_of
from ssl_lightning.runs.run import Run, find_runs


def beginning(config: Mapping[str, Any], parts: Parts, method: SSLMethod) -> Path | None:
    """The checkpoint of the longest finished run that this one is a continuation of, if there is one: a run of the same
    sweep that differs in nothing but its length. Its rows of metrics become those of this run.

    Raises:
        UserError: a longer training of these settings differs from a shorter one from its first step on.
    """
    if reason := _depends_on_length(config, method):
        raise UserError(
            f"extend is true, but {reason}, so that a longer training differs from the first step on. Train anew, "
            "with extend=false; or choose optimizer.schedule=constant from the beginning."
        )
    shorter = [run for run in find_runs([parts.run.folder.parent]) if run.done and _is_beginning(run, config, parts)]
    steps = {run: run.results()["planned_steps"] for run in shorter}
    enough = [run for run in shorter if steps[run] >= 2 * _warmup(config, parts, method)]  # else it was cut short
    if not enough:
        what = "whose warm-up was not cut short" if shorter else "of these settings"
        print(f"extend: {parts.run.folder.parent} has no finished shorter run {what}.", flush=True)
        return None
    longest = max(enough, key=steps.__getitem__)
    if longest.metrics_file.exists():
        with replacing(parts.run.metrics_file) as temporary:
            shutil.copyfile(longest.metrics_file, temporary)
    print(f"extend: goes on from {longest.id}", flush=True)
    return checkpoint_of(longest.folder)


def _warmup(config: Mapping[str, Any], parts: Parts, method: SSLMethod) -> float:
    """Optimizer steps of the longest one; at most half of a training."""
    assert method.recipe is not None
    epoch = parts.subset.size(len(parts.dataset.train().labels)) // config["batch_size"]
    schedules = [method.recipe.lr_schedule, *(method.recipe.schedules or {}).values()]
    return epoch * max(schedule.warmup_epochs for schedule in schedules if isinstance(schedule, Schedule))


def _depends_on_length(config: Mapping[str, Any], method: SSLMethod) -> str:
    recipe = method.recipe
    assert recipe is not None
    schedules = {"lr": recipe.lr_schedule, **(recipe.schedules or {})}
    for name, schedule in schedules.items():
        if not (isinstance(schedule, Schedule) and schedule.shape == "constant"):
            return f"the schedule of {name} is made for trainer.max_epochs={config['trainer']['max_epochs']}"
    if method.needs_length:
        return f"{type(method).__name__} changes something over the length of the training"
    return "resolution grows over the length of the training" if config.get("resolution") else ""


def _is_beginning(run: Run, config: Mapping[str, Any], parts: Parts) -> bool:
    """Whether a run's name is that of this config with the length of that run."""
    if run.id == parts.run.id:
        return False
    try:
        theirs = run.config()["trainer"]
        length = {key: theirs[key] for key in ("max_epochs", "max_steps")}
    except (UserError, KeyError, TypeError):
        return False
    same = {**config, "trainer": {**config["trainer"], **length}}
    return parts.identify(same).run_name == run.id and _shorter(length, config["trainer"])


def _shorter(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether no limit of a training is above those of another; -1 is none."""
    return all(0 <= one[key] <= other[key] or other[key] == -1 for key in ("max_epochs", "max_steps"))
