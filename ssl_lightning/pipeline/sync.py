"""ssl-sync: builds wandb runs anew from the folders of runs, each once."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ssl_lightning.config.identity import digest_of
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.files import inside, locked, read_text, write_json
from ssl_lightning.lightning_internals import wandb_arguments, wandb_settings_of_the_past
from ssl_lightning.loggers.artifacts import log_artifacts
from ssl_lightning.loggers.wandb import Wandb, end_wandb, log_rows, numbers_of, show_results
from ssl_lightning.loggers.wandb_run import LONGEST_TAG, wandb_arguments_of
from ssl_lightning.pipeline.artifacts import artifacts_of, wants_artifacts
from ssl_lightning.pipeline.launch import as_first
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.progress import how_far
from ssl_lightning.runs.reading import stopped_early
from ssl_lightning.runs.run import MEASURED, Run, Status, find_runs

LAYOUT = 1
"""Goes up when wandb runs are to hold something else: then all are built again."""
MARKER = "wandb.json"
"""File of a run's folder that says what of it has been uploaded, and where to."""
PROJECT = "ssl_lightning"
"""Of runs that were made without wandb."""
PATIENCE = 600.0
"""Seconds that the server may take for one run."""
Mode = Literal["auto", "online", "offline"]


class RebuiltRun(Wandb):
    """A wandb run of a run that is over, or rests."""

    later: ClassVar[str] = "ssl-sync again, which then uploads"


@dataclass(frozen=True)
class Content:
    """Of a wandb run: what `wandb.init` takes, and what is logged.

    Args:
        results: empty where the run has none.
        figures: PNG files by name.
        error: of a failed run, its first line.
    """

    run: Run
    status: Status
    arguments: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]
    results: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Path]
    error: str

    @property
    def id(self) -> str:
        return str(self.arguments["id"])

    @property
    def digest(self) -> str:
        images = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in self.figures.items()}
        what = [self.status, self.arguments, self.rows, self.results, self.evaluations, images, self.error]
        what += ["artifacts"] if self.results and wants_artifacts(self.run.config()) else []
        return digest_of([LAYOUT, json.dumps(what, sort_keys=True)])


@as_first()  # this process is alone, also where another launcher has left `RANK=1` in its environment
def sync(
    folders: Sequence[Path],
    project: str | None = None,
    entity: str | None = None,
    mode: Mode = "auto",
    again: bool = False,
) -> None:
    """Uploads each run in the folders whose content is not yet in wandb, as one history from its first row.

    A run that was uploaded and has changed replaces what wandb has under the same id. Runs that are being trained are
    left to their own logger.

    Args:
        project: of wandb; None for that of the run's config.
        entity: user or team; None for that of the run's config.
        mode: `offline` only builds files for `wandb sync`, in each run's folder; `auto` does so without a login.
        again: also what has not changed.

    Raises:
        UserError: there are no runs; or some could not be uploaded, which are named.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")
    runs = find_runs(list(folders))
    if not runs:
        raise UserError(f"There are no runs in {', '.join(map(str, folders))}: no folder in it has a config.yaml.")
    contents, running, failed = _contents(runs)
    settled: Mode = mode if mode == "offline" else _settled(mode)
    done: list[Path] = []
    unchanged = 0
    for content in contents:
        try:
            with locked(content.run.folder / MARKER):
                place = _destination(content, project, entity, settled)
                if not again and _marked(content.run) == place:
                    unchanged += 1
                    continue
                done.append(_upload(content, place, settled))
        except Exception as error:
            end_wandb(exit_code=1)
            failed.append(f"{content.run.id}: {in_one_line(error)}")
        else:
            print(f"{content.run.id}: {content.status}, rows: {len(content.rows)}", flush=True)
    kept = [folder for folder in done if folder.is_dir()]
    numbers = {"built offline": len(kept), "uploaded": len(done) - len(kept), "unchanged": unchanged}
    numbers |= {"still running": len(running), "failed": len(failed)}
    print(", ".join(f"{number} {what}" for what, number in numbers.items() if number), flush=True)
    if kept:
        print(f"Upload them: wandb sync {' '.join(map(str, kept[:3]))}{' ...' * (len(kept) > 3)}", flush=True)
    if failed:
        lines = "\n".join(f"- {line}" for line in failed)
        raise UserError(
            f"{len(failed)} of {len(runs)} runs were not uploaded; ssl-sync again tries them again:\n{lines}"
        )


def _settled(mode: Mode) -> Mode:
    """What `auto` means here; asked once."""
    logger = RebuiltRun(PROJECT, "", mode=mode)
    return "online" if wandb_arguments(logger)["mode"] == "online" else "offline"


def _contents(runs: Sequence[Run]) -> tuple[list[Content], list[Run], list[str]]:
    """Of the runs, each wandb id once: of copies, the one that has come furthest. Beside them the runs that are being
    trained, and lines on those that cannot be read."""
    found: dict[str, Content] = {}
    running: list[Run] = []
    damaged: list[str] = []
    for run in runs:
        status = run.status
        if status == "running":
            running.append(run)
            print(f"{run.id}: is being trained, and left to its own logger", flush=True)
            continue
        try:
            content = _content(run, status)
        except (UserError, OSError, ValueError) as error:
            damaged.append(f"{run.id}: {in_one_line(error)}")
            continue
        former = found.get(content.id)
        if former is None or how_far(status, len(content.rows)) > how_far(former.status, len(former.rows)):
            found[content.id] = content
    return list(found.values()), running, damaged


def _content(run: Run, status: Status) -> Content:
    identity, config = run.described()
    sweep = str(config.get("sweep") or run.folder.parent.name)
    results = run.results() if status in MEASURED else {}
    evaluations = run.evaluations() if results else []
    rows = read_metrics(run.metrics_file)
    for row in rows:
        numbers_of(row)  # before a wandb run begins with a part of them
    error = run.reason() if status == "failed" else ""
    arguments = wandb_arguments_of(identity.called(run.id), identity, sweep, config)
    if marker := _marked(run):  # `wandb agent` gives ids of its own
        arguments["id"] = marker["id"]
    own = _of_config(config)
    tags = [*arguments["tags"], *own.pop("tags")]
    arguments |= own | {"tags": list(dict.fromkeys(tags))}
    return Content(run, status, arguments, rows, results, evaluations, _figures(run), error)


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `logger=wandb` of the run's config said of its wandb run."""
    logger = config.get("logger")
    said = logger.get("wandb") if isinstance(logger, Mapping) else None
    said = said if isinstance(said, Mapping) else {}
    texts = {key: said[key] for key in ("name", "notes", "project", "entity") if isinstance(said.get(key), str)}
    tags = said.get("tags")
    tags = tags if isinstance(tags, list) else []
    return {**texts, "tags": [tag for tag in tags if isinstance(tag, str) and 0 < len(tag) <= LONGEST_TAG]}


def _figures(run: Run) -> dict[str, Path]:
    """No link leads to what is none of the run's."""
    folder = os.path.realpath(run.folder)
    files = sorted(run.folder.glob("figures/[!.]*.png"))
    return {file.stem: file for file in files if file.is_file() and inside(os.path.realpath(file), folder)}


def mark_uploaded(run: Run, loggers: Sequence[Wandb]) -> None:
    """Spares what a run's own logger has uploaded: built anew, it would lose its hours, and what wandb watched of the
    machine. No failure of this costs a run."""
    for logger in loggers:
        with contextlib.suppress(UserError, OSError, ValueError):
            content = _content(run, "stopped" if stopped_early(run.results()) else "finished")
            content = replace(content, arguments={**content.arguments, "id": str(logger.experiment.id)})
            write_json(run.folder / MARKER, _destination(content, None, None, "online"))


def _destination(content: Content, project: str | None, entity: str | None, mode: Mode) -> dict[str, Any]:
    """What the marker of a run says once it is there."""
    import wandb

    return {
        "id": content.id,
        "project": project or content.arguments.get("project", PROJECT),
        "entity": entity or content.arguments.get("entity"),
        "server": wandb.setup().settings.base_url if mode == "online" else None,
        "digest": content.digest,
    }


def destination(run: Run, config: Mapping[str, Any]) -> tuple[str | None, str]:
    """Entity and project of wandb where a run was uploaded to, or else would be."""
    said = {**_of_config(config), **(_marked(run) or {})}
    return said.get("entity"), said.get("project") or PROJECT


def _marked(run: Run) -> dict[str, Any] | None:
    """None where nothing, or nothing legible, says that it was uploaded, or where what was built is gone."""
    try:
        marker = json.loads(read_text(run.folder / MARKER, 2**16))
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or not re.fullmatch(r"[\w.-]{1,64}", str(marker.get("id"))):
        return None
    if marker.get("server") is None and not _built(run, str(marker.get("id"))):
        return None
    return marker


def _built(run: Run, id: str) -> list[Path]:
    """Folders of wandb's in the run's."""
    return [folder for folder in (run.folder / "wandb").glob("*run-*") if folder.name.endswith(f"-{id}")]


def _upload(content: Content, place: Mapping[str, Any], mode: Mode) -> Path:
    """Returns wandb's folder of the run, which is gone where a server has taken what was in it.

    Raises:
        UserError: the server did not take it in time.
    """
    run = content.run
    if (run.folder / "wandb").is_symlink():
        raise UserError(f"{run.folder / 'wandb'} is a link. Put a folder in its place: nothing is written through it.")
    for former in _built(run, content.id):
        shutil.rmtree(former)
    logger = RebuiltRun(place["project"], str(run.folder), place["entity"], mode, upload_seconds=PATIENCE)
    arguments = wandb_arguments(logger)
    said = {key: value for key, value in content.arguments.items() if key not in ("project", "entity")}
    # Without `resume`, a run of the same id is replaced.
    arguments |= said | {"resume": None, "settings": {**arguments["settings"], **wandb_settings_of_the_past()}}
    begun = logger.experiment
    artifacts = None
    log_rows(logger, content.rows)
    if content.results:
        show_results(logger, content.results, content.figures, content.evaluations)
        artifacts = artifacts_of(run, run.config(), content.results)
        if artifacts is not None:
            log_artifacts(begun, artifacts, content.results)
    else:
        begun.summary.update({"status": content.status, **({"error": content.error} if content.error else {})})
    folder = Path(begun.dir).parent
    try:
        begun.finish(exit_code=0 if content.results else 1)
    except TimeoutError:
        raise UserError(f"the server did not take it within {PATIENCE:.0f} s") from None
    if arguments["mode"] == "online":
        shutil.rmtree(folder)
        if artifacts is not None:
            shutil.rmtree(artifacts.encoder, ignore_errors=True)
        if not any((run.folder / "wandb").glob("*run-*-*")):
            shutil.rmtree(run.folder / "wandb", ignore_errors=True)  # only wandb's own notes are left
    else:
        place = {**place, "server": None}
    write_json(run.folder / MARKER, place)
    return folder
