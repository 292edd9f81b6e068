"""What a job answers a sweeper that chooses the next jobs by it, such as Optuna's."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode

from ssl_lightning.errors import UserError

_FOLDER = "SSL_ANSWERS"
"""Folder of the answers, of which a job's has its number as a name."""
_BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def learns(hydra: Any) -> bool:
    """Whether the sweeper of this config chooses jobs by what others have answered."""
    return str(hydra.sweeper._target_) != _BASIC


def refuse_to_answer(hydra: Any, launcher: str) -> None:
    """
    Raises:
        UserError: the sweeper needs values of jobs, which this launcher hands on from none.
    """
    if learns(hydra):
        raise UserError(
            f"hydra/sweeper chooses jobs by what others have reached, which hydra/launcher={launcher} does not hand "
            "back. Choose hydra/launcher=pool or basic."
        )


def asked() -> bool:
    """Whether the job of this process is to answer."""
    hydra = HydraConfig.get()
    return _FOLDER in os.environ if hydra.mode == RunMode.RUN else learns(hydra)


def answer(value: float) -> None:
    """Leaves it to the process that has started this one, where one waits for it."""
    if folder := os.environ.get(_FOLDER):
        (Path(folder) / str(HydraConfig.get().job.num)).write_text(json.dumps(value))


@contextlib.contextmanager
def answers(wanted: bool) -> Iterator[Path | None]:
    """Of the jobs that are started meanwhile, where answers are wanted: the folder that they leave them in."""
    if not wanted:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_FOLDER] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ[_FOLDER]


def returned(overrides: Mapping[int, Any], codes: Mapping[int, int], folder: Path) -> list[JobReturn]:
    """By the numbers of jobs and their exit codes, what a sweeper takes; that of one that has failed raises its error
    where the value is asked for."""
    made = []
    for number, values in overrides.items():
        one = JobReturn(overrides=values, status=JobStatus.COMPLETED)
        try:
            one.return_value = json.loads((folder / str(number)).read_text())
        except FileNotFoundError:
            one.status = JobStatus.FAILED
            one.return_value = UserError(f"Job #{number} has failed, with exit code {codes.get(number)}.")
        made.append(one)
    return made
