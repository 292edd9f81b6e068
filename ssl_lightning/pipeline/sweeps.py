"""How far the jobs of a sweep are: from what they have told, and from the folders of their runs. Imports nothing
heavy, as it is asked often."""

import math
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssl_lightning.config.grid import Grid
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.journal import Told, journal_of
from ssl_lightning.pipeline.matching import runs_of
from ssl_lightning.runs.progress import Progress, in_time, read_progress
from ssl_lightning.runs.run import Run, Status

State = Literal["finished", "stopped", "running", "failed", "interrupted", "to do"]
STATES: tuple[State, ...] = ("finished", "stopped", "running", "failed", "interrupted", "to do")
SHOWN = 3
"""Reasons of failures that a line names."""
NAMED = 10
"""Interrupted jobs that have a line each."""
_OF_RUN: Mapping[Status, State] = {
    "finished": "finished",
    "stopped": "stopped",
    "running": "running",
    "failed": "failed",
    "unfinished": "interrupted",
}


@dataclass(frozen=True)
class Job:
    """Of a grid.

    Args:
        number: in the grid.
        overrides: that make it.
        state: *running* also before its training; *interrupted* is one that was killed or asked to end; *stopped* has
            results, but of fewer steps than planned.
        reason: of a failure, a line.
        seconds: of wall time that it has taken so far.
        progress: of its training, where there are no results yet.
    """

    number: int
    overrides: tuple[str, ...]
    state: State
    reason: str
    seconds: float
    progress: Progress | None
    run: Run | None


def jobs_of(grid: Grid) -> list[Job]:
    """In the order of `--dry-run`. Where a sweeper chooses jobs one by one, those that it has started."""
    journal = journal_of(grid.runs, grid.file, grid.folders)
    if grid.jobs is None:
        heard = sorted(journal.all_told(), key=lambda told: told.began)
        return [
            _job(number, told.overrides, told, told.run, journal.is_at_work(told.overrides))
            for number, told in enumerate(heard)
        ]
    told = [journal.told(job) for job in grid.jobs]
    known = {job: one.run for job, one in zip(grid.jobs, told, strict=True) if one is not None and one.run is not None}
    found = runs_of(grid, known)
    return [
        _job(number, job, one, found.get(job), journal.is_at_work(job))
        for number, (job, one) in enumerate(zip(grid.jobs, told, strict=True))
    ]


def _job(number: int, overrides: tuple[str, ...], told: Told | None, folder: Any, at_work: bool) -> Job:
    """
    Args:
        at_work: a process is at the job, also before there is a run: it makes a ranking, or trains proxies.
    """
    run = Run(folder) if folder is not None and (folder / "config.yaml").exists() else None
    spent = told.seconds if told is not None else 0.0
    if run is None:
        if at_work:
            return Job(number, overrides, "running", "", spent, None, None)
        error = told.error if told is not None else ""
        return Job(number, overrides, "failed" if error else "to do", _line(error), spent, None, None)
    state, reason = _OF_RUN[run.status], ""
    if at_work and state in ("failed", "interrupted"):
        return Job(number, overrides, "running", "", spent, None, run)
    if state == "interrupted" and told is not None and told.error:
        state = "failed"
        reason = told.error
    elif state == "failed":
        reason = run.reason()
    progress = None
    if state in ("finished", "stopped"):
        spent = max(spent, _cost(run))
    else:
        progress = read_progress(run.progress_file)
        if state == "running" and told is not None:
            spent += max(time.time() - told.began, 0.0)
        spent = max(spent, progress.train_seconds if progress else 0.0)
    return Job(number, overrides, state, _line(reason), spent, progress, run)


def _cost(run: Run) -> float:
    try:
        cost = run.results()["cost"]
    except UserError:
        return 0.0
    return float(sum(cost.get(f"{part}_seconds") or 0.0 for part in ("train", "watching", "evaluation")))


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]


def seconds_left(jobs: Sequence[Job]) -> float:
    """Of work on what runs, was interrupted or is to do, one job at a time; NaN where none has finished."""
    done = [job for job in jobs if job.state == "finished"]
    if not done:
        return math.nan
    rest = [job for job in jobs if job.state in ("running", "interrupted", "to do")]
    return math.fsum(left_of(job, seconds_like(job, done)) for job in rest)


def seconds_like(job: Job, done: Sequence[Job]) -> float:
    """What those finished jobs have taken, on average, that share most of its overrides; NaN where there are none."""
    if not done:
        return math.nan
    shared = [len({*job.overrides} & {*other.overrides}) for other in done]
    return statistics.fmean(other.seconds for other, alike in zip(done, shared, strict=True) if alike == max(shared))


def left_of(job: Job, whole: float) -> float:
    """Seconds that a job still takes, of as many as it takes in all."""
    left = job.progress.seconds_left if job.progress is not None and job.state == "running" else math.nan
    return max(whole - job.seconds, 0.0) if math.isnan(left) else left


def in_a_line(jobs: Sequence[Job]) -> str:
    """Such as `18 finished, 2 failed: CUDA is out of memory (2)`."""
    counts = Counter(job.state for job in jobs)
    words = [f"{counts[state]} {state}" for state in STATES if counts[state]]
    reasons = Counter(job.reason for job in jobs if job.state == "failed")
    if not reasons:
        return ", ".join(words)
    failed = f"{counts['failed']} failed"
    shown = [f"{reason} ({number})" for reason, number in reasons.most_common(SHOWN)]
    shown += [f"and {more} other reasons, see --status"] if (more := len(reasons) - SHOWN) > 0 else []
    why = "; ".join(shown)
    return f"{', '.join(word for word in words if word != failed)}{', ' * (len(words) > 1)}{failed}: {why}"


def in_lines(name: str, jobs: Sequence[Job]) -> list[str]:
    """The whole state of a sweep, for a person."""
    counts = Counter(job.state for job in jobs)
    shown = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [f"{name}: {len(jobs)} job{'s' * (len(jobs) != 1)}{': ' * bool(jobs)}{shown}"]
    alike = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    named = {"running"} | ({"interrupted"} if counts["interrupted"] <= NAMED else set())
    for job in jobs:
        if job.state in named:
            title = " ".join(override for override in job.overrides if override not in alike)
            lines.append(f"{job.state}: #{job.number} {title}: {_how_far(job)}")
    if counts["interrupted"] > NAMED:
        numbers = ", ".join(f"#{job.number}" for job in jobs if job.state == "interrupted")
        lines.append(f"interrupted: {counts['interrupted']} ({numbers})")
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        if job.state == "failed":
            groups.setdefault(job.reason, []).append(job)
    for reason, ones in sorted(groups.items(), key=lambda group: -len(group[1])):
        numbers = ", ".join(f"#{job.number}" for job in ones)
        lines.append(f"failed: {len(ones)} ({numbers}): {reason}")
    spent = f"spent: {in_time(sum(job.seconds for job in jobs))}"
    left = seconds_left(jobs)
    if any(counts[state] for state in ("running", "interrupted", "to do")):
        if math.isnan(left):
            spent += "; left: not known before a job has finished"
        else:
            spent += f"; left: about {in_time(left)} of work"
            if counts["running"] > 1:
                spent += f", {in_time(left / counts['running'])} with {counts['running']} jobs at a time as now"
    return [*lines, spent]


def _how_far(job: Job) -> str:
    if job.progress is None:
        if job.run is not None and job.run.results_file.exists():
            return "it is evaluated, only its end is missing"
        return "before its training" if job.state == "running" else "nobody knows how far"
    return job.progress.in_words(job.state == "running")
