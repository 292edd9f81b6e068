"""ssl-report --watch: the report, written anew while runs train, until Ctrl-C."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.report import refuse_what_is_no_folder, report_folder
from ssl_lightning.runs.run import MEASURED, Run, Status, find_runs

if TYPE_CHECKING:
    from ssl_lightning.reports.content import Content
    from ssl_lightning.reports.figures import Plot
    from ssl_lightning.reports.records import Record

LEAST = 1.0
"""Seconds between two looks."""


class Look(NamedTuple):
    """What a run's folder holds, as far as a look at the names and times of its files tells."""

    status: Status
    files: tuple[tuple[str, int, int], ...]


def watch(
    folders: Sequence[Path], output: Path | None = None, reference: str | None = None, every: float = 30.0
) -> None:
    """Writes the report, and writes it anew whenever something has changed in the runs, with a line that says what. Its
    page loads itself anew. Ctrl-C ends it: the page is written once more, as one that stays as it is.

    Args:
        every: seconds between two looks.

    Raises:
        UserError: a folder is none, or `every` is less than `LEAST`; or the first report cannot be written.
    """
    refuse_what_is_no_folder(folders)
    if not every >= LEAST:
        raise UserError(f"--every is {every:g}. Give seconds, at least {LEAST:g}.")
    output = output or report_folder(folders[0])
    print(f"Report: {output / 'report.html'}, looked after every {every:g} s until Ctrl-C", flush=True)
    with tempfile.TemporaryDirectory() as narrow:
        watched = Watched(folders, output, reference, every, Path(narrow))
        try:
            while True:
                watched.look()
                time.sleep(every)
        except KeyboardInterrupt:
            watched.end()


class Watched:
    """A report that is kept up to date. Runs that have not changed are not read again, nor are figures drawn again
    while all results are the same."""

    def __init__(
        self, folders: Sequence[Path], output: Path, reference: str | None, every: float, narrow: Path
    ) -> None:
        self._folders, self._output, self._reference = list(folders), output, reference
        self._every, self._narrow = every, narrow
        self._looks: Mapping[Path, Look] | None = None
        self._records: dict[Path, Record] = {}
        self._content: Content | None = None
        self._written = False
        self._figures: list[Plot] = []
        self._drawn: object = None
        self._told = ""

    def look(self) -> None:
        """Reads what has changed, writes, and says so."""
        looks = {run.folder: look_at(run) for run in find_runs(self._folders)}
        if looks == self._looks:
            return
        former, self._looks = self._looks, looks
        if not looks:
            return _say("no runs yet")
        try:
            self._read(former or {}, looks)
            self._write()
        except UserError as error:
            if not self._written:
                raise
            self._looks = None  # and tried again
            if str(error) != self._told:
                _say(f"not written: {error}")
            self._told = str(error)
            return
        self._told = ""
        _say(changes(former or {}, looks, [record for record in self._records.values() if record.error]))

    def end(self) -> None:
        """Leaves a page that stays as it is."""
        if self._content is not None:
            from ssl_lightning.reports.files import write

            write(self._content, self._output, self._figures)
        _say("ended")

    def _read(self, former: Mapping[Path, Look], looks: Mapping[Path, Look]) -> None:
        from ssl_lightning.reports.records import record_of

        for folder in self._records.keys() - looks.keys():
            del self._records[folder]
        for folder, look in looks.items():
            if folder not in self._records or former.get(folder) != look:
                self._records[folder] = record_of(Run(folder), look.status)

    def _write(self) -> None:
        from ssl_lightning.reports.content import content_of
        from ssl_lightning.reports.files import write, writing_to
        from ssl_lightning.reports.html import Live
        from ssl_lightning.reports.plots import plots_of
        from ssl_lightning.reports.records import joined

        assert self._looks is not None
        content = content_of(joined(self._records[folder] for folder in self._looks), self._reference)
        self._content = content
        drawn = {folder: look for folder, look in self._looks.items() if look.status in MEASURED}
        with writing_to(self._output):
            if drawn != self._drawn:
                self._figures = plots_of(content.tables, content.differences, self._output, self._narrow)
                self._drawn = drawn
            write(content, self._output, self._figures, Live(self._every, time.time()))
        self._written = True


def look_at(run: Run) -> Look:
    """Reads none of its files."""
    status = run.status
    files = []
    named = (run.config_file, run.metrics_file, run.results_file, run.error_file, run.progress_file)
    for file in (*named, *sorted(run.folder.glob("evaluations/*.json"))):
        try:
            found = os.stat(file)
        except OSError:
            continue
        files.append((file.name, found.st_mtime_ns, found.st_size))
    return Look(status, tuple(files))


def changes(former: Mapping[Path, Look], looks: Mapping[Path, Look], failed: Sequence["Record"]) -> str:
    """Such as `18 finished (+1), 2 running`, and why runs have failed since.

    Args:
        failed: among the runs.
    """
    counts = Counter(look.status for look in looks.values())
    before = Counter(look.status for look in former.values())
    words = []
    for status in get_args(Status):
        more = counts[status] - before[status] if former else 0
        if counts[status] or more:
            words.append(f"{counts[status]} {status}{f' ({more:+})' * bool(more)}")
    had = {folder for folder, look in former.items() if look.status in ("failed", "damaged")}
    news = [f"{record.run.id}: {record.reason}" for record in failed if record.run.folder not in had] if former else []
    return "; ".join([", ".join(words), *news])


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)
