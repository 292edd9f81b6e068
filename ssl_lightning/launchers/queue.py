"""Waits for jobs of SLURM's, and says what becomes of each."""

import contextlib
import getpass
import io
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobStatus, filter_overrides

from ssl_lightning.errors import user_error_in
from ssl_lightning.explaining import explained
from ssl_lightning.launchers.job import FAIL_FAST
from ssl_lightning.launchers.journal import tell_death

EVERY = 5.0
"""Seconds between two looks at the queue."""
PATIENCE = 30.0
"""Seconds that the result of a job may take to appear here once the job has left the queue, on a slow file system."""
_IN_TURN = "JobArrayTaskLimit"
"""Why a job waits that others of its array come before."""
_WORDS = {"PENDING": "waits to go on", "RUNNING": "runs"}


@dataclass
class _Watched:
    """A job, and what was seen of it.

    Args:
        job: of submitit's.
        overrides: under which it is known to the journal of a sweep.
        state: SLURM's name for it, of those in `_WORDS`, at the last look that has found one.
        begun: it has run.
        gone: when it was first missing in the queue; None while it is there.
        well: whether it has ended well; None while it has not ended, or where it never began.
    """

    job: Any
    overrides: Sequence[str] = ()
    state: str = ""
    begun: bool = False
    gone: float | None = None
    well: bool | None = None
    cancelled: bool = False


def watch(jobs: Mapping[int, Any], overrides: Mapping[int, Sequence[str]]) -> tuple[dict[int, bool], int]:
    """Waits until all have ended; those that are in the queue to start again have not.

    With `FAIL_FAST`, those that wait when a job has failed are cancelled. The journal is told of one that was killed.

    Args:
        jobs: of submitit's, by their numbers in a multirun.
        overrides: of each.

    Returns:
        whether each has ended well, by its number; and how many others were cancelled before they began.
    """
    watched = {number: _Watched(job, tuple(filter_overrides(overrides[number]))) for number, job in jobs.items()}
    waiting, look_at = dict(watched), 0.0
    said: set[str] = set()
    while waiting:
        if (now := time.monotonic()) >= look_at:
            look_at = now + EVERY
            _look(waiting, now, said)
        for number, one in list(waiting.items()):
            if _has_ended(number, one, now):
                del waiting[number]
        if os.environ.get(FAIL_FAST) and any(one.well is False for one in watched.values()):
            _cancel([one for one in waiting.values() if not one.cancelled])
        time.sleep(0.5 if waiting else 0)
    ended = {number: one.well for number, one in watched.items() if one.well is not None}
    return ended, len(watched) - len(ended)


def _look(waiting: Mapping[int, _Watched], now: float, said: set[str]) -> None:
    """At the queue. Where SLURM does not answer, as when it is busy, everything is taken to be as before.

    Args:
        said: reasons for waiting that were printed.
    """
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i %T %r"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if answer.returncode:
        return
    queue = {job: (state, reason) for job, state, reason in (line.split(" ", 2) for line in answer.stdout.splitlines())}
    for number, one in waiting.items():
        if one.job.job_id not in queue:
            one.gone = one.gone or now
            continue
        one.gone = None
        state, reason = queue[one.job.job_id]
        if state in _WORDS and state != one.state and (one.begun or state == "RUNNING"):
            print(f"#{number} {_WORDS[state]}", flush=True)
            one.begun, one.state = True, state
        elif state == "PENDING" and not one.begun and reason not in ("None", _IN_TURN, *said):
            print(f"#{number} waits: {reason}", flush=True)
            said.add(reason)


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
    words = _last_words(one.job)
    if one.begun and words and not asked_to_end(words):
        tell_death(one.overrides, f"it was ended: {words}")
    if words:
        words = f"it was ended: {words} ({one.job.paths.stdout})"
    else:
        words = f"SLURM has ended it {'without a word' if one.begun else 'before it began'}"
        words += f" (scontrol show job {one.job.job_id})"
    print(f"#{number} failed: {words}", flush=True)
    return True


def asked_to_end(words: str) -> bool:
    """Whether SLURM's last words on a job say that somebody, a time limit or another job wanted it to end."""
    return "CANCELLED" in words and "NODE FAILURE" not in words


def _error(job: Any) -> str | None:
    """Of a job that has left a result."""
    try:
        result = job.task(0).result()
        if result.status == JobStatus.COMPLETED:
            return None
        with contextlib.redirect_stderr(io.StringIO()):  # where Hydra repeats the overrides
            _ = result.return_value
        return "failed"
    except Exception as error:
        said = str(user_error_in(error) or explained(error)).strip().partition("\n")[0]
        return f"failed: {said} ({job.task(0).paths.stdout})"


def _last_words(job: Any) -> str:
    """Of a job that was ended from outside: SLURM's, which begin with stars, where there are any; empty where it has
    printed nothing."""
    try:
        lines = job.paths.stdout.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    words = next((line for line in reversed(lines) if "error: ***" in line), lines[-1] if lines else "")
    return words.partition("***")[2].strip(" *") or words


def _cancel(jobs: list[_Watched]) -> None:
    """Those that wait."""
    if names := [one.job.job_id for one in jobs]:
        subprocess.run(["scancel", "--state=PENDING", *names], stderr=subprocess.DEVNULL)
    for one in jobs:
        one.cancelled = True
