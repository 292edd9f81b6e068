"""What a process owes to the one that has started it: it does not outlive it, however that ends, and tells it how a job
ended."""

import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssl_lightning.errors import UserError
from ssl_lightning.files import folder_of_sweep

GRACE = 30.0
"""Seconds that a job has to save its work once it was asked to stop."""

_VARIABLE = "SSL_POOL"
_STARTED = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK")
"""By which Lightning takes a process for one that others have started."""
_FIRST = "SSL_FIRST_PROCESS"
"""Number of the process that starts the others of a command."""
_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
_FOLDERS = "SSL_SWEEP_FOLDERS"


def in_pool(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a job whose standard input is a pipe that ends when the pool does.

    Whatever has started the pool, such as a task of SLURM's, its jobs start their processes themselves.
    """
    others = {key: value for key, value in environment.items() if key not in (*_STARTED, _FIRST)}
    return others | {_VARIABLE: "1"}


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


def say_how_jobs_ended(ended: Mapping[int, bool]) -> None:
    """Prints the last line of a multirun, or raises it where jobs have failed.

    Args:
        ended: numbers of the jobs, and whether they have ended well.
    """
    failed = [f"#{number}" for number, well in sorted(ended.items()) if not well]
    done = f"{len(ended) - len(failed)} of {len(ended)} jobs done"
    if failed:
        raise UserError(f"{done}, {len(failed)} failed: {', '.join(failed)}. The same command tries them again.")
    print(done, flush=True)


@contextlib.contextmanager
def folders_of_jobs(shared: Path) -> Iterator[list[Path]]:
    """A list that holds, after the block, the folders of the sweeps to which jobs belong that were started in it, in
    whatever process or on whatever machine: each adds its own to a file.

    Args:
        shared: a folder that all jobs see.
    """
    found: list[Path] = []
    shared.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("r", dir=shared, prefix=".folders-", encoding="utf-8") as lines:
        os.environ[_FOLDERS] = os.path.abspath(lines.name)
        try:
            yield found
        finally:
            del os.environ[_FOLDERS]
            found += sorted({Path(json.loads(line)) for line in lines})


def tell_folder(runs: str, sweep: str) -> None:
    """Where a job's run is going to lie, for `folders_of_jobs`; a name that will be refused is not told."""
    if (file := os.environ.get(_FOLDERS)) is None:
        return
    with contextlib.suppress(OSError, UserError):
        folder = folder_of_sweep(runs, sweep).absolute()
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(str(folder)) + "\n")
