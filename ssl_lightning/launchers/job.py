"""A job's side of a multirun: what it tells, and that no process of a job outlives the pool, however the pool ends."""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ssl_lightning.errors import UserError
from ssl_lightning.files import safe_name

GRACE = 30.0
"""Seconds that a job has to save its work once it was asked to stop."""

_VARIABLE = "SSL_POOL"
_FOLDERS = "SSL_SWEEP_FOLDERS"


def in_pool(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a job whose standard input is a pipe that ends when the pool does.

    Where the pool itself is a task of SLURM's, its jobs are not: they start their processes themselves.
    """
    return {key: value for key, value in environment.items() if key != "SLURM_NTASKS"} | {_VARIABLE: "1"}


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
        folder = Path(runs).absolute() / safe_name(sweep, "sweep")
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(str(folder)) + "\n")
