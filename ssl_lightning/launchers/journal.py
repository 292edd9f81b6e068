"""What the jobs of a sweep leave for whoever asks about it: which run each has made, or why it has made none.

`<paths.runs>/.sweeps/<grid>-<8 hex digits>/` has a JSON file a job, named by its overrides, which only the job writes,
or what has started it once it was killed, whole or not at all: jobs may run on many machines that share the folder. The
digits change with every config that the
grid may choose from, so that what is told of the former ones is not taken for what would be run now.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from ssl_lightning.errors import UserError
from ssl_lightning.files import folder_of_sweep, read_text, write_json

FOLDER = ".sweeps"
"""Name of a folder in `paths.runs`, which no search for runs looks into."""
_JOURNAL, _CALL = "SSL_SWEEP_JOURNAL", "SSL_SWEEP_CALL"


class Told(NamedTuple):
    """Of one job.

    Args:
        overrides: that tell it from other jobs of the grid.
        sweep: the folder of its runs, once it is known.
        run: its run's, likewise.
        error: why it has ended, where no run says it; else empty.
        seconds: of wall time in which it had something to do, over all its starts.
        began: when it was started last, in seconds since 1970.
        call: of the command, the last that has started it.
    """

    overrides: tuple[str, ...]
    sweep: Path | None
    run: Path | None
    error: str
    seconds: float
    began: float
    call: str


class Journal:
    """
    Args:
        folder: in `paths.runs/.sweeps`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _runs(self) -> Path:
        return self.folder.parent.parent

    def file(self, overrides: Sequence[str]) -> Path:
        text = json.dumps(sorted(overrides))
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"

    @contextlib.contextmanager
    def at_work(self, overrides: Sequence[str]) -> Iterator[None]:
        """In the block, this process is seen to work on the job: it holds a lock that ends with it. Where another does
        already, or nothing can be written, it does without."""
        lock = FileLock(self.file(overrides).with_suffix(".lock"))
        with contextlib.suppress(OSError, Timeout):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        try:
            yield
        finally:
            lock.release()

    def is_at_work(self, overrides: Sequence[str]) -> bool:
        """Whether some process is."""
        file = self.file(overrides).with_suffix(".lock")
        if not file.exists():
            return False
        try:
            with FileLock(file).acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # a disk that may only be read: nobody knows
            return False

    def told(self, overrides: Sequence[str]) -> Told | None:
        """What a job has told; None where that is nothing, or damaged."""
        return self._read(self.file(overrides))

    def all_told(self) -> list[Told]:
        return [told for file in sorted(self.folder.glob("*.json")) if (told := self._read(file)) is not None]

    def write(self, told: Told) -> None:
        """What cannot be written, as on a full disk, stops no job."""
        content = told._asdict() | {name: self._shown(getattr(told, name)) for name in ("sweep", "run")}
        with contextlib.suppress(UserError):
            write_json(self.file(told.overrides), content)

    def _read(self, file: Path) -> Told | None:
        try:
            content = json.loads(read_text(file, 2**20))
            texts = [content["error"], content["call"], *content["overrides"]]
            if not all(isinstance(text, str) for text in texts):
                return None
            times = float(content["seconds"]), float(content["began"])
            places = self._place(content["sweep"]), self._place(content["run"])
            return Told(tuple(content["overrides"]), *places, content["error"], *times, content["call"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def _shown(self, place: Path | None) -> str | None:
        """Relative to `paths.runs`, where another machine may have it under another name."""
        if place is None:
            return None
        with contextlib.suppress(ValueError):
            place = place.absolute().relative_to(self._runs.absolute())
        return str(place)

    def _place(self, shown: str | None) -> Path | None:
        return None if shown is None else self._runs / shown


def journal_of(runs: Path, grid: Path, folders: Sequence[Path]) -> Journal:
    """
    Args:
        runs: `paths.runs`.
        grid: a YAML file.
        folders: of all configs that it may choose from.
    """
    found = hashlib.sha256(grid.read_bytes())
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            if "sweeps" not in file.relative_to(folder).parts:  # where other grids are
                found.update(f"\0{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return Journal(runs.absolute() / FOLDER / f"{grid.stem}-{found.hexdigest()[:8]}")


@contextlib.contextmanager
def kept_in(journal: Journal) -> Iterator[list[Path]]:
    """Jobs that are started in the block, in whatever process or on whatever machine, write into the journal. The list
    holds, after the block, the folders of the sweeps that they belong to."""
    folders: list[Path] = []
    call = uuid.uuid4().hex
    os.environ |= {_JOURNAL: str(journal.folder), _CALL: call}
    try:
        yield folders
    finally:
        del os.environ[_JOURNAL], os.environ[_CALL]
        folders += sorted({told.sweep for told in journal.all_told() if told.sweep and told.call == call})


def is_first() -> bool:
    """Whether this is the first process of its job."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))


def journal_here() -> Journal | None:
    """That which is kept where this process was started."""
    folder = os.environ.get(_JOURNAL)
    return None if folder is None else Journal(Path(folder))


_job: list[tuple[Journal, Told]] = []
"""Of this process, at most one: what it has told so far."""


@contextlib.contextmanager
def job_told(overrides: Sequence[str]) -> Iterator[None]:
    """In the block, this process is the job of these overrides, where a journal is kept."""
    if (journal := journal_here()) is None or not is_first():
        yield
        return
    former = journal.told(overrides)
    seconds, now = former.seconds if former else 0.0, time.time()
    places = (former.sweep, former.run) if former else (None, None)
    _job[:] = [(journal, Told(tuple(overrides), *places, "", seconds, now, os.environ.get(_CALL, "")))]
    with journal.at_work(overrides):
        try:
            yield
        finally:
            _job.clear()


def tell_folder(runs: str, sweep: str) -> None:
    """Where this job's run is going to lie; a name that will be refused is not told."""
    with contextlib.suppress(OSError, UserError):
        _tell(sweep=folder_of_sweep(runs, sweep).absolute(), error="")


def tell_run(folder: Path) -> None:
    """Which run this job makes, or of ssl-select, which ranking: a file."""
    _tell(run=folder.absolute(), error="")


def tell_error(message: str) -> None:
    """Why this job ends."""
    _tell(error=message)


def tell_seconds() -> None:
    """That this job has done something since it began."""
    if _job:
        told = _job[0][1]
        _tell(seconds=told.seconds + time.time() - told.began)


def tell_death(overrides: Sequence[str], reason: str) -> None:
    """Why a job of these overrides has ended that could not say so itself: told by what has started it, where a journal
    is kept."""
    if (journal := journal_here()) is None:
        return
    told = journal.told(overrides) or Told(tuple(overrides), None, None, "", 0.0, 0.0, "")
    journal.write(told._replace(error=reason, call=os.environ.get(_CALL, "")))


def _tell(**what: object) -> None:
    if _job:
        journal, told = _job[0]
        told = told._replace(**what)  # type: ignore[arg-type]
        _job[:] = [(journal, told)]
        journal.write(told)
