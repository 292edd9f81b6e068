"""What a process owes to the one that has started it: it does not outlive it, however that ends, and tells it how a job
ended."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from hydra.core.utils import filter_overrides

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line

GRACE = 30.0
"""Seconds that a job has to save its work once it was asked to stop."""

_VARIABLE = "SSL_POOL"
_STARTED = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK")
"""By which Lightning takes a process for one that others have started."""
_FIRST = "SSL_FIRST_PROCESS"
"""Number of the process that starts the others of a command."""
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
_ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which somebody asks a process to end."""
PIPED = {
    "PYTHONUNBUFFERED": "1",  # lines arrive when they are printed
    "PYTHONSAFEPATH": "1",  # as a console script, a job finds no modules in the working directory
}
"""Variables of a job whose lines another process shows."""
FAIL_FAST = "SSL_FAIL_FAST"
"""Variable that says, where it is set, that no job of a multirun is started after one has failed."""


def in_pool(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a job whose standard input is a pipe that ends when the pool does.

    Whatever has started the pool, such as a task of SLURM's, its jobs start their processes themselves.
    """
    others = {key: value for key, value in environment.items() if key not in (*_STARTED, _FIRST)}
    return others | {_VARIABLE: "1"}


def titles(overrides: Sequence[Sequence[str]]) -> list[str]:
    """Of the jobs of a multirun: their overrides, but for those that all have."""
    alike = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [" ".join(value for value in filter_overrides(values) if value not in alike) for values in overrides]


_numbers: dict[tuple[str, ...], int] = {}
"""Of the jobs of a grid, by their sorted overrides."""


@contextlib.contextmanager
def numbered(jobs: Sequence[Sequence[str]]) -> Iterator[None]:
    """In the block, a multirun of some of these jobs calls each by its number among them all."""
    _numbers.update((tuple(sorted(job)), number) for number, job in enumerate(jobs))
    try:
        yield
    finally:
        _numbers.clear()


def numbers(overrides: Sequence[Sequence[str]], first: int) -> list[int]:
    """Of the jobs of a multirun, of which Hydra calls one the first."""
    known = [_numbers.get(tuple(sorted(filter_overrides(values))), -1) for values in overrides]
    return known if min(known, default=-1) >= 0 else list(range(first, first + len(overrides)))


def in_slurm() -> bool:
    """Whether SLURM has started this process, and ends it: it is none of a pool, or of a shell there."""
    return "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def in_step() -> bool:
    """Whether srun has started this process in a job of SLURM's, and not the job's script."""
    return in_slurm() and "SLURM_STEP_ID" in os.environ


def requeue_signal() -> int | None:
    """By which SLURM warns of a time limit, where submitit has started this process, whose handler has the job start
    again."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm" or not in_slurm():
        return None
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def start_again() -> NoReturn:
    """Ends this process, and has SLURM start the job again, once what `requeue_signal` says has ended the training.

    Raises:
        UserError: in the first process, where the job will not start again.
    """
    number = requeue_signal()
    assert number is not None
    try:
        signal.raise_signal(number)  # to submitit's handler, which does nothing in the others
    except Exception as error:
        raise UserError(
            f"SLURM's time limit is near, and the job does not start again: {in_one_line(error)}. All is saved, and "
            "the same command goes on; hydra.launcher.max_num_timeout says how often a job does so by itself."
        ) from error
    sys.exit(0)


def end_with_first_process() -> None:
    """Where this is one of the processes that a command has started for itself (Lightning gives them LOCAL_RANK),
    Linux kills it when the first of them is gone, for which it would wait at their next meeting."""
    if not started_by_command():
        os.environ[_FIRST] = str(os.getpid())  # of those that are started here
    elif sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[_FIRST]):  # it was gone before that
            os._exit(1)


def started_by_command() -> bool:
    """Whether another process of this command has started this one, and not torchrun, which watches over its own."""
    by_another = os.environ.get(_FIRST, str(os.getpid())) != str(os.getpid())
    return by_another and os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ


def end_with_pool() -> None:
    """Where this is a process of a job: asks the job to stop when the pool is gone, and kills it after `GRACE`.

    Standard input is what all processes of a job inherit, so those that Lightning starts watch the pool too.
    """
    if _VARIABLE in os.environ:
        threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    os.read(0, 1)  # nobody ever writes: it returns when the last writer, the pool, is gone
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # nobody reads the output any more: what is printed now must not be an error
    os.dup2(nowhere, 2)
    if os.getpid() == os.getpgrp():  # the first process of the job tells the others
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def killed_by(code: int) -> str:
    """By what a process was killed, in words; empty where it was not, or was asked to end.

    Args:
        code: its exit code, minus the number of a signal that has ended it.
    """
    if code >= 0 or -code in _ASKS:
        return ""
    if -code == signal.SIGKILL:
        return f"killed by signal {-code} (out of memory?)"
    return f"killed by signal {-code} ({signal.strsignal(-code)})"


def say_how_jobs_ended(ended: Mapping[int, bool], left: int = 0) -> None:
    """Prints the last line of a multirun, or raises it where jobs have failed.

    Args:
        ended: numbers of the jobs, and whether they have ended well.
        left: how many were not started after one had failed.
    """
    failed = [f"#{number}" for number, well in sorted(ended.items()) if not well]
    done = f"{len(ended) - len(failed)} of {len(ended) + left} jobs done"
    if failed:
        rest = f", {left} not started" if left else ""
        again = "The same command tries them again."
        raise UserError(f"{done}, {len(failed)} failed: {', '.join(failed)}{rest}. {again}")
    print(done, flush=True)
