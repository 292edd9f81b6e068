"""How long the jobs of a grid will take, from jobs of it that have finished, or else from runs like theirs."""

import heapq
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from ssl_lightning.config.grid import Grid
from ssl_lightning.config.identity import component_name
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.slots import available_cores, make_slots, visible_gpus
from ssl_lightning.pipeline.sweeps import jobs_of, left_of, seconds_like
from ssl_lightning.runs.progress import in_time
from ssl_lightning.runs.results import device_name
from ssl_lightning.runs.run import Run, find_runs

POOL, SLURM, RAY, BASIC = "PoolLauncher", "SlurmLauncher", "RayLauncher", "BasicLauncher"


class Former:
    """Finished runs below `paths.runs`, read where they are asked for.

    Args:
        anywhere: the jobs are to run on other machines, whose devices are not known here.
    """

    def __init__(self, grid: Grid, anywhere: bool) -> None:
        self._grid, self._anywhere = grid, anywhere
        self.used: set[str] = set()
        """Folders of those that a job was taken to be like."""
        self.devices: set[str] = set()
        """On which these were trained."""

    @cached_property
    def _runs(self) -> list[Run]:
        return [run for run in find_runs([self._grid.runs]) if run.done]

    def seconds(self, config: Mapping[str, Any]) -> float:
        """What a run of a resolved config takes if it is as fast as those of the same method, backbone, dataset and
        device: in training in proportion to its epochs and images. NaN where there is none."""
        times = [
            cost["train_seconds"] * _work(config) / _work(former) + _otherwise(cost)
            for former, cost in self._like(config)
        ]
        return statistics.fmean(times) if times else math.nan

    def _like(self, config: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        begins = f"{component_name(config['method'])}-{config['dataset']['name']}-"
        for run in self._runs:
            if not run.id.startswith(begins):
                continue
            try:
                former, results = run.config(), run.results()
                if _kind(former) != _kind(config):
                    continue
            except (UserError, OSError, ValueError, KeyError, TypeError):  # damaged, or of another version
                continue
            device = str(results["environment"].get("device"))
            if self._anywhere or device == _device(config):
                self.used.add(str(run.folder))
                self.devices.add(device)
                yield former, results["cost"]


def how_long(grid: Grid, configs: Sequence[Mapping[str, Any]]) -> str:
    """A line for a person.

    Args:
        configs: of the grid's jobs, resolved.
    """
    jobs = jobs_of(grid)
    done = [job for job in jobs if job.state == "finished"]
    former = Former(grid, anywhere=grid.launcher.endswith((SLURM, RAY)))
    seconds = []
    for job, config in zip(jobs, configs, strict=True):
        if job.state == "finished" or (job.run is not None and job.run.settled):
            continue
        whole = seconds_like(job, done) if done else former.seconds(config)
        seconds.append(left_of(job, whole))
    if not seconds:
        return "All jobs are finished."
    known = [one for one in seconds if not math.isnan(one)]
    if not known:
        return "How long they take is not known: no finished run is like them."
    words = f"About {in_time(math.fsum(known))} of work"
    if (slots := slots_of(grid)) is not None and slots > 1:
        words += f", {in_time(makespan(known, slots))} at {slots} slots"
    words += f" for the other {_several(len(known), 'job')}" if done else ""
    if done:
        words += f", as {_several(len(done), 'finished job')} took"
    else:
        words += f", as {_several(len(former.used), 'finished run')} like them took on {' and '.join(former.devices)}"
    if lacking := len(seconds) - len(known):
        words += f"; {_several(lacking, 'job')} not counted: no finished run is like them"
    return f"{words}."


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def slots_of(grid: Grid) -> int | None:
    """How many jobs are run at a time; None where nobody knows."""
    if grid.launcher.endswith(POOL):
        return len(make_slots(grid.at_once, visible_gpus(), available_cores()))
    if grid.launcher.endswith(BASIC):
        return 1
    return grid.at_once if isinstance(grid.at_once, int) else None


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Until the last of some jobs has ended, each of which begins, in order, as soon as a slot is free."""
    ends = [0.0] * slots
    for one in seconds:
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def _kind(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Runs of one kind take as long for an image and epoch."""
    dataset, trainer = config["dataset"], config["trainer"]
    length = config["budget"] == "compute", trainer["max_steps"]
    return component_name(config["method"]), dataset["name"], dataset["image_size"], config["backbone"], *length


def _work(config: Mapping[str, Any]) -> float:
    """In a unit that runs of one kind share."""
    epochs = config["trainer"]["max_epochs"]
    if config["trainer"]["max_steps"] > 0 or epochs < 1:
        return 1.0
    return epochs * ((config["subset"].get("fraction") or 1.0) if config["budget"] == "epochs" else 1.0)


def _otherwise(cost: Mapping[str, Any]) -> float:
    """Seconds, of what does not grow with training."""
    return sum(cost.get(f"{part}_seconds") or 0.0 for part in ("watching", "evaluation"))


def _device(config: Mapping[str, Any]) -> str:
    accelerator = config["trainer"]["accelerator"]
    return device_name(accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available())
