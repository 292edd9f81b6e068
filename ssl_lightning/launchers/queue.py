"""Waits for jobs of SLURM's, and says what becomes of each."""

import getpass
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobStatus

from ssl_lightning.errors import user_error_in
from ssl_lightning.explaining import explained
from ssl_lightning.launchers.job import FAIL_FAST

EVERY = 5.0
"""Seconds between two looks at the queue."""
PATIENCE = 30.0
"""Seconds that the result of a job may take to appear here once the job has left the queue, on a slow file system."""
_WORDS = {"PENDING": "waits to go on", "RUNNING": "runs"}


@dataclass
class _Watched:
    """A job, and what was seen of it.

    Args:
        job: of submitit's.
        state: SLURM's name for it, at the last look.
        begun: it has run.
        gone: when it was first missing in the queue; None while it is there.
        well: whether it has ended well; None while it has not ended, or where it never began.
    """

    job: Any
    state: str = ""
    begun: bool = False
    gone: float | None = None
    well: bool | None = None
    cancelled: bool = False


def watch(jobs: Mapping[int, Any]) -> tuple[dict[int, bool], int]:
    """Waits until all have ended; those that are in the queue to start again have not.

    With `FAIL_FAST`, those that wait when a job has failed are cancelled.

    Args:
        jobs: of submitit's, by their numbers in a multirun.

    Returns:
        whether each has ended well, by its number; and how many others were cancelled before they began.
    """
    watched = {number: _Watched(job) for number, job in jobs.items()}
    waiting, look_at = dict(watched), 0.0
    while waiting:
        if (now := time.monotonic()) >= look_at:
            look_at = now + EVERY
            _look(waiting, now)
        for number, one in list(waiting.items()):
            if _has_ended(number, one, now):
                del waiting[number]
        if os.environ.get(FAIL_FAST) and any(one.well is False for one in watched.values()):
            _cancel([one for one in waiting.values() if not one.cancelled])
        time.sleep(0.5 if waiting else 0)
    ended = {number: one.well for number, one in watched.items() if one.well is not None}
    return ended, len(watched) - len(ended)


def _look(waiting: Mapping[int, _Watched], now: float) -> None:
    """At the queue. Where SLURM does not answer, as when it is busy, everything is taken to be as before."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if answer.returncode:
        return
    states = dict(line.split() for line in answer.stdout.splitlines())
    for number, one in waiting.items():
        state = states.get(one.job.job_id)
        if state is None:
            one.gone = one.gone or now
            continue
        one.gone = None
        if state != one.state and state in _WORDS and (one.begun or state == "RUNNING"):
            print(f"#{number} {_WORDS[state]}", flush=True)
            one.begun = True
        one.state = state


def _has_ended(number: int, one: _Watched, now: float) -> bool:
    if one.job.paths.result_pickle.exists():
        error = _error(one.job)
        one.well = error is None
        print(f"#{number} {error or 'done'}", flush=True)
        return True
    if one.gone is None or (one.begun and now - one.gone < PATIENCE):
        return False
    if one.cancelled and not one.begun:
        print(f"#{number} not started", flush=True)
        return True
    one.well = False
    print(f"#{number} failed: {_last_words(one.job)}", flush=True)
    return True


def _error(job: Any) -> str | None:
    """Of a job that has left a result."""
    try:
        result = job.task(0).result()
        if result.status == JobStatus.COMPLETED:
            return None
        _ = result.return_value
        return "failed"
    except Exception as error:
        said = str(user_error_in(error) or explained(error)).strip().partition("\n")[0]
        return f"failed: {said} ({job.task(0).paths.stdout})"


def _last_words(job: Any) -> str:
    """Of a job that was ended from outside."""
    file = job.paths.stdout
    try:
        words = file.read_text(errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return f"SLURM has ended it before it began (scontrol show job {job.job_id})"
    return f"it was ended: {words} ({file})"


def _cancel(jobs: list[_Watched]) -> None:
    """Those that wait."""
    if names := [one.job.job_id for one in jobs]:
        subprocess.run(["scancel", "--state=PENDING", *names], stderr=subprocess.DEVNULL)
    for one in jobs:
        one.cancelled = True
