"""Runs are deleted, and moved to other sweeps."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import reason
from ssl_lightning.files import inside
from ssl_lightning.runs.run import Run, find_runs

GOING = ".going-"
"""Beginning of the name of what is being deleted or moved, which no search for runs looks at."""


def named_runs(folders: Sequence[Path]) -> list[Run]:
    """Runs in or below folders, but none to which a link leads: it lies elsewhere, and was not named.

    Raises:
        UserError: a folder is a link itself, or there is none.
    """
    for folder in folders:
        if folder.is_symlink():
            raise UserError(f"{folder} is a link to {folder.resolve()}. Name the folder itself.")
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")
    real = [os.path.realpath(folder) for folder in folders]
    return [run for run in find_runs(list(folders)) if any(inside(str(run.folder), place) for place in real)]


def refuse_to_touch(runs: Sequence[Run]) -> None:
    """
    Raises:
        UserError: one of the runs is at work, or has another one in its folder that is not among them.
    """
    for run in runs:
        if run.status == "running":
            raise UserError(f"A process is working on {run.folder}. Wait for it, or stop it first. Nothing was done.")
        others = {other.folder for other in find_runs([run.folder])} - {one.folder for one in runs}
        if others:
            raise UserError(f"{run.folder} has another run in it, {min(others)}. Name that, too. Nothing was done.")


def size_of(run: Run) -> int:
    """Bytes of its files."""
    return sum(os.lstat(os.path.join(place, name)).st_size for place, _, files in os.walk(run.folder) for name in files)


def remove(run: Run) -> None:
    """Deletes its folder; where this is interrupted, what remains is no run any more.

    Raises:
        UserError: another process works on it, or it cannot be deleted.
    """
    try:
        with run.held():
            going = run.folder.with_name(f"{GOING}{run.id}")
            run.folder.rename(going)
        shutil.rmtree(going)
    except OSError as error:
        raise UserError(f"{run.folder} cannot be deleted: {reason(error)}") from error


def refuse_to_move(runs: Sequence[Run], sweep: Path) -> None:
    """
    Raises:
        UserError: there are runs of these names in the folder already, or two of them have one name.
    """
    taken: set[str] = set()
    for run in runs:
        if run.id in taken or (sweep / run.id).exists():
            raise UserError(
                f"{sweep / run.id} would be there twice. Leave {run.folder} where it is, or delete one of them. "
                "Nothing was moved."
            )
        taken.add(run.id)


def move(run: Run, sweep: Path) -> Run:
    """Puts a run into the folder of another sweep; to another disk by a copy, which is whole before it has its name.

    Raises:
        UserError: another process works on it, or it cannot be moved.
    """
    place = sweep / run.id
    try:
        sweep.mkdir(parents=True, exist_ok=True)
        with run.held():
            if run.folder.stat().st_dev == sweep.stat().st_dev:
                run.folder.rename(place)
                return Run(place)
            copy = sweep / f"{GOING}{run.id}"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(run.folder, copy, symlinks=True)
            copy.rename(place)
        shutil.rmtree(run.folder)
    except OSError as error:
        raise UserError(f"{run.folder} cannot be moved to {place}: {reason(error)}") from error
    return Run(place)
