"""progress.json: how far a run is in its training, for whoever asks meanwhile."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_lightning.errors import UserError
from ssl_lightning.files import write_json
from ssl_lightning.launchers.journal import journal_here
from ssl_lightning.runs.reading import read_of_run
from ssl_lightning.runs.run import Status


class Progress(NamedTuple):
    """
    Args:
        step, planned_steps: optimizer steps; the latter -1 where nobody knows.
        epoch, epochs: begun, from 1, and planned; the latter -1 where steps are.
        images_per_second: lately; NaN before the first steps.
        seconds_per_step: likewise.
        train_seconds: of wall time, over all resumptions.
        time: when this was written, in seconds since 1970.
    """

    step: int
    planned_steps: int
    epoch: int
    epochs: int
    images_per_second: float
    seconds_per_step: float
    train_seconds: float
    time: float

    @property
    def seconds_left(self) -> float:
        """Of training; NaN where this is not known."""
        return (self.planned_steps - self.step) * self.seconds_per_step if self.planned_steps > 0 else math.nan

    def in_words(self, running: bool) -> str:
        """Such as `epoch 2 of 5, step 30 of 100`; of a run that is at work also how fast, and how long yet."""
        epochs = f" of {self.epochs}" if self.epochs > 0 else ""
        steps = f" of {self.planned_steps:,}" if self.planned_steps > 0 else ""
        words = [f"epoch {self.epoch}{epochs}", f"step {self.step:,}{steps}"]
        if running and 0 < self.planned_steps <= self.step:
            words.append("in evaluation")
        elif running and not math.isnan(self.images_per_second):
            words.append(f"{self.images_per_second:,.0f} images/s")
            words.append(f"{in_time(self.seconds_left)} of training left")
        return ", ".join(words)


def how_far(status: Status, steps: int) -> tuple[int, int, int]:
    """By which copies of a run are ordered, the one that has come furthest last.

    Args:
        steps: optimizer steps, or any other count that grows with them.
    """
    stage = {"damaged": 0, "unfinished": 1, "failed": 1, "stopped": 2, "running": 3, "finished": 4}[status]
    return stage, steps, int(status == "failed")  # which says why


def write_progress(file: Path, progress: Progress) -> None:
    """What cannot be written, as on a full disk, stops no training."""
    with contextlib.suppress(UserError):
        write_json(file, {key: None if value != value else value for key, value in progress._asdict().items()})


def read_progress(file: Path) -> Progress | None:
    """None where there is none, or it is damaged."""
    try:
        content = json.loads(read_of_run(file, file.parent, 2**16))
        return Progress(**{key: _number(content, key, kind) for key, kind in Progress.__annotations__.items()})
    except (OSError, ValueError, TypeError, KeyError, RecursionError, UserError):
        return None


def progress_of_job(overrides: Sequence[str]) -> str:
    """How far the job of these overrides is, in words; empty where no journal of a sweep is kept, or it does not train
    yet."""
    journal = journal_here()
    told = None if journal is None else journal.told(overrides)
    progress = None if told is None or told.run is None else read_progress(told.run / "progress.json")
    return "" if progress is None else progress.in_words(running=True)


def in_time(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    if math.isnan(seconds):
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _number(content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = math.nan if content[key] is None else content[key]
    if type(value) not in (int, float) or (kind is int and type(value) is not int):
        raise ValueError(f"{key} is {value!r:.40}")
    return kind(value)
