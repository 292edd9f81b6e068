"""A run's folder: what it holds, and when it is finished."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.errors import UserError, user_error_in
from ssl_lightning.files import read_text, remove_unfinished, write_json, write_text
from ssl_lightning.runs.former import IGNORED, SEEDS, moved

Status = Literal["finished", "running", "failed", "unfinished", "damaged"]

SCHEMA = 2
PATIENCE = 10.0
"""Seconds: workers of a process that was killed hold its lock until they notice, which takes five."""
PREVIOUS = "previous.ckpt"
"""Name of the checkpoint before the last."""


@dataclass(frozen=True)
class Run:
    """`<paths.runs>/<sweep>/<method>-<dataset>-<subset>-<fraction>-s<seed>-<8 hex digits>/` with

    config.yaml       the resolved config, below what it was identified by
    checkpoints/      last.ckpt; until the run is finished, previous.ckpt too
    metrics.csv       a row per logging interval
    results.json      identity, mask, metrics and their protocol, cost, environment
    evaluations/      metrics under other protocols, a JSON file each
    figures/          PNG
    error.txt         why it failed, while it has
    DONE              written last
    """

    folder: Path

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

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
    def id(self) -> str:
        return self.folder.name

    @property
    def done(self) -> bool:
        return (self.folder / "DONE").exists()

    @property
    def status(self) -> Status:
        if self.done:
            return "finished"
        lock = self._lock()
        try:
            with lock.acquire(blocking=False):
                return "failed" if self.error_file.exists() else "unfinished"
        except TimeoutError:
            return "running"
        except OSError:  # the lock cannot be opened for writing, as on a read-only mount
            return "failed" if self.error_file.exists() else "unfinished"

    def config(self) -> dict[str, Any]:
        """As it was resolved, its components named as they are now."""
        return self.described()[1]

    def described(self) -> tuple["Identity", dict[str, Any]]:
        """Identity and config. A config of schema 1 says nothing of the former."""
        content = _read_config(self.config_file)
        if content.pop("schema", 1) == 1:
            return Identity(ignored=IGNORED, seeds=SEEDS), moved(content)
        return Identity(**content.pop("identity")), content

    def results(self) -> dict[str, Any]:
        """
        Raises:
            UserError: the file is damaged.
        """
        return _read_results(self.results_file, ("identity", "mask", "cost", "metrics", "spectra"))

    def evaluation_file(self, name: str) -> Path:
        """Of a further evaluation.

        Raises:
            UserError: the folder for it is a link, as one of somebody else's run may be that leads elsewhere.
        """
        folder = self.folder / "evaluations"
        if folder.is_symlink():
            raise UserError(f"{folder} is a link. Put a folder in its place: nothing is written through it.")
        return folder / f"{name}.json"

    def evaluations(self, damaged: Callable[[UserError], object] = lambda error: None) -> list[dict[str, Any]]:
        """What the encoder was evaluated with further, under other protocols than that of `results`.

        Args:
            damaged: is told of each file that cannot be read, and is passed over.
        """
        found = []
        for file in sorted(self.folder.glob("evaluations/*.json")):
            try:
                found.append(_read_results(file, ("metrics", "spectra")))
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
                text = f"{mistake}\n" if mistake else f"{error}\n\n{traceback.format_exc()}"
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
        write_json(self.results_file, results)
        write_text(self.folder / "DONE", "")
        self.previous_checkpoint.unlink(missing_ok=True)

    def _lock(self) -> Any:
        from filelock import FileLock

        return FileLock(self.folder / ".lock")


@dataclass(frozen=True)
class Identity:
    """What a run is, in words, and which keys of its config are no part of that.

    Args:
        ignored: dotted keys that cannot change the encoder.
        seeds: dotted keys in which runs of one cell of a report differ.
        digest: eight hex digits that change with everything that can change the encoder.
    """

    method: str = ""
    dataset: str = ""
    subset: str = ""
    fraction: float | None = None
    seed: int | None = None
    budget: str = ""
    digest: str = ""
    ignored: tuple[str, ...] | list[str] = ()
    seeds: tuple[str, ...] | list[str] = ()

    @property
    def run_name(self) -> str:
        """Of the run's folder."""
        fraction = "all" if self.fraction is None else f"{self.fraction:g}"
        return "-".join((self.method, self.dataset, self.subset, fraction, f"s{self.seed}", self.digest))

    def as_dict(self) -> dict[str, Any]:
        return vars(self) | {"ignored": list(self.ignored), "seeds": list(self.seeds)}


def _read_results(file: Path, parts: Sequence[str]) -> dict[str, Any]:
    """
    Args:
        parts: which it must have, each a mapping.
    """
    try:
        content = json.loads(read_text(file))
        if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
            raise ValueError(f"it does not hold {', '.join(parts)}")
        numbers = content["metrics"]
        if wrong := [name for name, value in numbers.items() if type(value) not in (int, float)]:
            raise ValueError(f"its metric {wrong[0]} is no number")
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise UserError(
            f"{file} is damaged: {_short(error)}. Delete it, and start the same ssl-train again."
        ) from error
    return content


def _read_config(file: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = _read_yaml(file)
        if not isinstance(content, dict) or not isinstance(content.get("method"), dict):
            raise ValueError("it does not hold what a run consists of")
        if content.get("schema", 1) != 1 and not isinstance(content.get("identity"), dict):
            raise ValueError("it does not hold what the run is")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"{file} is damaged: {_short(error)}. Start the same ssl-train again: it is written anew."
        ) from error
    return content


def _short(error: Exception) -> str:
    """The reason, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_yaml(file: Path) -> Any:
    """What `OmegaConf.load` reads, ten times faster: by libyaml, where PyYAML comes with it."""
    import re

    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    # YAML 1.1 takes 1e-3 for a word.
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    text = read_text(file, 2**22)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
        raise ValueError("it uses aliases, by which a short file may become a large one")
    return yaml.load(text, Loader) or {}


def find_runs(folders: list[Path]) -> list[Run]:
    """All runs in or below the folders, sorted by name; also those that a link leads to, each once."""
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
            below[:] = [name for name in below if not _holds(os.path.realpath(os.path.join(place, name)), real)]
            if "config.yaml" in (*files, *below) and os.path.basename(place) != "files":  # where wandb keeps its own
                found.add(Path(real))
    return [Run(folder) for folder in sorted(found)]


def _holds(folder: str, other: str) -> bool:
    return other == folder or other.startswith(folder.rstrip(os.sep) + os.sep)
