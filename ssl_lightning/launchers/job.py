"""No process outlives what has started it, however that ends: the pool of a job, the first process of a training."""

import ctypes
import os
import signal
import sys
import threading
import time

GRACE = 30.0
"""Seconds that a job has to save its work once it was asked to stop."""

_VARIABLE = "SSL_POOL"
_FIRST = "SSL_FIRST_PROCESS"
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


def in_pool(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a job whose standard input is a pipe that ends when the pool does.

    Where the pool itself is a task of SLURM's, its jobs are not: they start their processes themselves.
    """
    others = {key: value for key, value in environment.items() if key not in ("SLURM_NTASKS", _FIRST)}
    return others | {_VARIABLE: "1"}


def end_with_first_process() -> None:
    """Where this is one of the processes that a command has started for itself (Lightning gives them LOCAL_RANK),
    Linux kills it when the first of them is gone, for which it would wait at their next meeting."""
    first, local_rank = os.environ.get(_FIRST), os.environ.get("LOCAL_RANK", "0")
    os.environ[_FIRST] = str(os.getpid())  # for those that are started here
    by_others = "TORCHELASTIC_RUN_ID" in os.environ  # which watch over them
    if first is None or local_rank == "0" or by_others or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(first):  # it was gone before that
        os._exit(1)


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
