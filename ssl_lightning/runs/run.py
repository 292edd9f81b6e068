"""A run's folder: what it holds, and when it is finished."""

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.errors import UserError, user_error_in
from ssl_lightning.explaining import explained
from ssl_lightning.files import SAFE_NAME, inside, remove_unfinished, write_json, write_text
from ssl_lightning.runs.former import IGNORED, SEEDS, moved
from ssl_lightning.runs.reading import read_config, read_of_run, read_results, stopped_early

Status = Literal["finished", "running", "stopped", "failed", "unfinished", "damaged"]

MEASURED: tuple[Status, ...] = ("finished", "stopped")
"""Of runs that have results."""

SCHEMA = 2
PATIENCE = 10.0
"""Seconds: workers of a process that was killed hold its lock until they notice, which takes five."""
CHECKPOINTS = "checkpoints"
"""Name of the folder of a run's own."""
PREVIOUS = "previous.ckpt"
"""Name of the checkpoint before the last."""
FORMER = ".former"
"""Name of the folder, in that of a sweep, of runs that others were put in the place of."""


@dataclass(frozen=True)
class Run:
    """`<paths.runs>/<sweep>/<method>-<dataset>[-<nuisance>]-<subset>-<fraction>-s<seed>-<8 hex digits>/` with

    config.yaml       the resolved config, below what it was identified by
    checkpoints/      last.ckpt; until the run is finished, previous.ckpt too
    metrics.csv       a row per logging interval
    results.json      identity, mask, metrics and their protocol, cost, environment
    evaluations/      metrics under other protocols, a JSON file each
    figures/          PNG
    encoder/          with logger.wandb.artifacts: its weights, until a server of wandb's has them
    profiles/         with trainer.profiler: where the time of its commands went, a file or more each
    error.txt         why it failed, while it has
    progress.json     how far its training is, until it has results
    DONE              written last, once training has taken as many steps as were planned; a run with results that
                      something has ended earlier, such as trainer.max_time, is *stopped*, and can be resumed, unless
                      it was a callback for early stopping
    """

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINTS / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        return self.checkpoint.with_name(PREVIOUS)

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def results_file(self) -> Path:
        return self.folder / "results.json"

    @property
    def error_file(self) -> Path:
        return self.folder / "error.txt"

    @property
    def progress_file(self) -> Path:
        return self.folder / "progress.json"

    @property
    def profiles(self) -> Path:
        return self.folder / "profiles"

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def done(self) -> bool:
        return (self.folder / "DONE").exists()

    @property
    def drawn(self) -> bool:
        """Whether it has figures, and no part of one."""
        return any(self.folder.glob("figures/*.png")) and not any(self.folder.glob("figures/.*.part"))

    @property
    def settled(self) -> bool:
        """Whether its training is over: done, or stopped by a callback for good."""
        if self.done:
            return True
        try:
            return bool(self.results().get("stopped_by")) and not self.error_file.exists()
        except UserError:
            return False

    @property
    def status(self) -> Status:
        if self.done:
            return "finished"
        lock = self._lock()
        try:
            with lock.acquire(blocking=False):
                return self._at_rest()
        except TimeoutError:
            return "running"
        except OSError:  # the lock cannot be opened for writing, as on a read-only mount
            return self._at_rest()

    def _at_rest(self) -> Status:
        if self.error_file.exists():
            return "failed"
        try:
            return "stopped" if stopped_early(self.results()) else "unfinished"
        except UserError:
            return "unfinished"

    def config(self) -> dict[str, Any]:
        """As it was resolved, its components named as they are now."""
        return self.described()[1]

    def described(self) -> tuple["Identity", dict[str, Any]]:
        """Identity and config. A config of schema 1 says nothing of the former."""
        content = read_config(self.config_file)
        if content.pop("schema", 1) == 1:
            return Identity(ignored=IGNORED, seeds=SEEDS), moved(content)
        identity = content.pop("identity")
        return Identity(**{f.name: identity[f.name] for f in fields(Identity) if f.name in identity}), content

    def results(self) -> dict[str, Any]:
        """
        Raises:
            UserError: the file is damaged.
        """
        return read_results(self.results_file, self.folder, ("identity", "mask", "cost", "metrics", "spectra"))

    def error(self) -> str:
        """Why it has failed.

        Raises:
            UserError: the file leads out of the run's folder.
            OSError, ValueError: it cannot be read.
        """
        return read_of_run(self.error_file, self.folder)

    def reason(self) -> str:
        """Why it has failed, in a line; where nobody can read that, why not."""
        try:
            return self.error().strip().partition("\n")[0]
        except (UserError, OSError, ValueError) as error:
            return str(error)

    def evaluation_file(self, name: str) -> Path:
        """Of a further evaluation.

        Raises:
            UserError: the folder for it is a link, as one of somebody else's run may be that leads elsewhere.
        """
        folder = self.folder / "evaluations"
        if folder.is_symlink():
            raise UserError(f"{folder} is a link. Put a folder in its place: nothing is written through it.")
        return folder / f"{name}.json"

    def evaluation(self, file: Path) -> dict[str, Any]:
        """
        Raises:
            UserError: the file is damaged.
        """
        remedy = "Delete it, and start the same ssl-evaluate, or ssl-train, again"
        return read_results(file, self.folder, ("metrics", "spectra"), remedy)

    def evaluations(self, damaged: Callable[[UserError], object] = lambda error: None) -> list[dict[str, Any]]:
        """What the encoder was evaluated with further, under other protocols than that of `results`.

        Args:
            damaged: is told of each file that cannot be read, and is passed over.
        """
        found = []
        for file in sorted(self.folder.glob("evaluations/*.json")):
            try:
                found.append(self.evaluation(file))
            except UserError as error:
                damaged(error)
        return found

    @contextlib.contextmanager
    def locked(self, identity: "Identity", config: Mapping[str, Any]) -> Iterator[None]:
        """Holds the run for this process. An error leaves `error.txt` behind, and everything else as it is."""
        import traceback

        from omegaconf import OmegaConf

        self.folder.mkdir(parents=True, exist_ok=True)
        with self.held():
            self.error_file.unlink(missing_ok=True)
            content = {"schema": SCHEMA, "identity": identity.as_dict(), **config}
            write_text(self.config_file, OmegaConf.to_yaml(OmegaConf.create(content)))
            try:
                yield
            except Exception as error:
                mistake = user_error_in(error)
                text = f"{mistake}\n" if mistake else f"{explained(error)}\n\n{traceback.format_exc()}"
                write_text(self.error_file, text)
                raise

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """No other process works on the run meanwhile."""
        try:
            lock = self._lock().acquire(timeout=PATIENCE)
        except TimeoutError:
            raise UserError(f"Another process is working on {self.folder}. Wait for it, or stop it first.") from None
        with lock:
            remove_unfinished(self.folder)
            yield

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes the results of training that has ended."""
        write_json(self.results_file, results)
        self.progress_file.unlink(missing_ok=True)
        if not stopped_early(results):
            write_text(self.folder / "DONE", "")
            self.previous_checkpoint.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Moves what the folder holds to another one, which reports of the sweep pass over. Returns that."""
        with self.held():
            former = self.folder.parent / FORMER
            former.mkdir(exist_ok=True)
            place = next(p for n in itertools.count(1) if not (p := former / f"{self.id}-{n}").exists())
            self.folder.rename(place)
        return place

    def _lock(self) -> Any:
        from filelock import FileLock

        return FileLock(self.folder / ".lock")


@dataclass(frozen=True)
class Identity:
    """What a run is, in words, and which keys of its config are no part of that.

    Args:
        ignored: dotted keys that cannot change the encoder.
        seeds: dotted keys in which runs of one cell of a report differ.
        nuisance: of the dataset; empty where there is none.
        contents: digests of what its config does not hold: data, a subset's file, a user's own code. Of what is
            published, or the product's own, there is none.
        digest: eight hex digits that change with everything that can change the encoder.
    """

    method: str = ""
    dataset: str = ""
    subset: str = ""
    fraction: float | None = None
    seed: int | None = None
    budget: str = ""
    digest: str = ""
    nuisance: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] | list[str] = ()
    seeds: tuple[str, ...] | list[str] = ()

    @property
    def run_name(self) -> str:
        """Of the run's folder."""
        fraction = "all" if self.fraction is None else f"{self.fraction:g}"
        nuisance = [self.nuisance] if self.nuisance else []
        return "-".join((self.method, self.dataset, *nuisance, self.subset, fraction, f"s{self.seed}", self.digest))

    def called(self, folder: str) -> str:
        """The name of the run, whatever somebody has called its folder since; of one that says no digest, as one of the
        former version, the folder's."""
        return self.run_name if self.digest else folder

    def known_as(self, folder: str) -> str:
        """As `called`, whatever its subset is called."""
        return replace(self, subset="").called(folder)

    def as_dict(self) -> dict[str, Any]:
        lists = {"ignored": list(self.ignored), "seeds": list(self.seeds)}
        return vars(self) | {"contents": dict(self.contents), **lists}


def named_as_in(sweep: Path, identity: Identity) -> Identity:
    """With the name of the subset that its run in the folder of a sweep was begun with, where that is another."""
    if not identity.digest or (sweep / identity.run_name).exists():
        return identity
    before, after = replace(identity, subset="\0").run_name.split("\0")
    files = sorted(sweep.glob(f"{glob.escape(before)}*{glob.escape(after)}/config.yaml"))
    files.sort(key=lambda file: not Run(file.parent).done)
    names = [file.parent.name.removeprefix(before).removesuffix(after) for file in files]
    return next((replace(identity, subset=name) for name in names if re.fullmatch(SAFE_NAME, name)), identity)


def find_runs(folders: list[Path]) -> list[Run]:
    """All runs in or below the folders, sorted by name; also those that a link leads to, each once; none
    in hidden folders."""
    found: set[Path] = set()
    seen: set[str] = set()
    for folder in folders:
        for place, below, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            # A link to a folder above would lead to runs that nobody has asked for.
            below[:] = [
                name
                for name in below
                if not name.startswith(".") and not inside(real, os.path.realpath(os.path.join(place, name)))
            ]
            if "config.yaml" in (*files, *below) and os.path.basename(place) != "files":  # where wandb keeps its own
                found.add(Path(real))
    return [Run(folder) for folder in sorted(found)]
