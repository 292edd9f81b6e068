"""ssl-runs: runs in any folders, listed, compared by one number, shown, deleted, moved."""

import csv
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ssl_lightning.errors import UserError
from ssl_lightning.files import safe_name
from ssl_lightning.reports.choosing import Filter, chosen, column_of, filter_in
from ssl_lightning.reports.records import Record, records_of
from ssl_lightning.reports.rows import WHAT, columns_of, no_formula, whole_row
from ssl_lightning.runs.moving import move, named_runs, refuse_to_move, refuse_to_touch, remove, size_of
from ssl_lightning.runs.progress import read_progress
from ssl_lightning.runs.run import Run, find_runs

Format = Literal["text", "json", "csv"]
METRIC = "linear/top1"
_SHOWN = ("status", "method", "dataset", "subset", "fraction", "seed", METRIC, "cost/train_seconds", "folder")


def told_apart(words: Sequence[str]) -> tuple[list[Path], list[Filter]]:
    """Folders, and filters.

    Raises:
        UserError: a word is neither.
    """
    folders: list[Path] = []
    filters: list[Filter] = []
    for word in words:
        if os.path.lexists(word):
            folders.append(Path(word))
        elif (made := filter_in(word)) is not None:
            filters.append(made)
        else:
            raise UserError(
                f"{word} is no folder, and no filter. Give folders of runs, and filters such as method=simclr or "
                "'fraction<0.5', in quotes."
            )
    return folders, filters


def list_runs(words: Sequence[str], format: Format) -> None:
    """A row for each run, however many folders it lies in or links lead to it."""
    rows = [row for _, row in _kept(*told_apart(words))]
    _print(rows, format, _SHOWN)
    if format == "text":
        print(f"{len(rows)} run{'s' * (len(rows) != 1)}", file=sys.stderr)


def best_runs(words: Sequence[str], format: Format, metric: str, number: int, lowest: bool) -> None:
    """Runs with the highest values of a metric. Those of two datasets, or of two protocols, are not compared."""
    from ssl_lightning.reports.frame import rows_of

    records = [record for record, _ in _kept(*told_apart(words))]
    rows = [row for row in rows_of(records, {}) if "protocol" in row]
    column = column_of(rows, metric) if rows else metric
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if type(row.get(column)) in (int, float) and not math.isnan(row[column]):
            groups.setdefault((row["dataset"], row["protocol"]), []).append(row)
    if not groups:
        raise UserError(f"No run with results has {metric}. ssl-runs ls --csv shows what they have.")
    ranked = {key: sorted(ones, key=lambda row: row[column] * (1 if lowest else -1)) for key, ones in groups.items()}
    if format != "text":
        _print([row for ones in ranked.values() for row in ones[:number]], format, ())
        return
    for (dataset, protocol), ones in ranked.items():
        print(f"{dataset}, evaluation {protocol}: {column} of {len(ones)} run{'s' * (len(ones) != 1)}")
        _print(ones[:number], format, (column, *WHAT[:1], *WHAT[2:5], "folder"))


def show_runs(words: Sequence[str], format: Format) -> None:
    """All that is known of each run."""
    kept = _kept(*told_apart(words))
    if format != "text":
        _print([row for _, row in kept], format, ())
        return
    for record, row in kept:
        print(record.run.folder)
        settings = {key for key in row if "." in key}
        for key in row:
            if key not in settings and key not in ("folder", "run") and row[key] not in (None, ""):
                print(f"  {key}: {_text(row[key])}")
        if record.status not in ("finished", "stopped") and (progress := read_progress(record.run.progress_file)):
            print(f"  progress: step {progress.step:,} of {progress.planned_steps:,}")
        print(f"  size: {_bytes(size_of(record.run))}")


def remove_runs(words: Sequence[str], sure: bool) -> None:
    """Deletes runs in the named folders, after it has listed them and been told so.

    Raises:
        UserError: nothing was named, nobody can be asked, or a run is at work.
    """
    runs = _touched(words)
    for run in runs:
        print(f"{run.folder}  {run.status}  {_bytes(size_of(run))}")
    if not runs:
        print("No run is meant.")
        return
    refuse_to_touch(runs)
    total = f"{len(runs)} run{'s' * (len(runs) != 1)}, {_bytes(sum(map(size_of, runs)))}"
    if not sure:
        if not sys.stdin.isatty():
            raise UserError(f"{total}: nothing was deleted, as nobody can be asked. Add --yes.")
        if input(f"Delete {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return
    for run in reversed(runs):  # one inside another goes first
        remove(run)
    print(f"Deleted: {total}")


def move_runs(words: Sequence[str], sweep: Path) -> None:
    """Moves runs in the named folders into that of another sweep.

    Raises:
        UserError: nothing was named, a run is at work, or would take the place of another one.
    """
    safe_name(sweep.name, "the name of the sweep")
    if (sweep / "config.yaml").exists():
        raise UserError(f"{sweep} is a run. Name the folder of a sweep, which collects runs.")
    runs = [run for run in _touched(words) if run.folder.parent != sweep.resolve()]
    refuse_to_touch(runs)
    refuse_to_move(runs, sweep)
    for run in runs:
        print(f"{run.folder} -> {move(run, sweep).folder}")
    print(f"{len(runs)} run{'s' * (len(runs) != 1)} moved")


def _touched(words: Sequence[str]) -> list[Run]:
    """Those that are to be changed: each by itself, also where two folders hold the same."""
    folders, filters = told_apart(words)
    if not folders:
        raise UserError("Name the folders of the runs that are meant, such as runs/<sweep>; filters choose among them.")
    runs = named_runs(folders)
    rows = [whole_row(record) for run in runs for record in records_of([run])]
    return [runs[i] for i in chosen(rows, filters)]


def _kept(folders: Sequence[Path], filters: Sequence[Filter]) -> list[tuple[Record, dict[str, Any]]]:
    """Runs that filters keep, of `paths.runs` by default, each once."""
    folders = folders or [Path(os.environ.get("SSL_RUNS") or "runs").expanduser()]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")
    records = records_of(find_runs(list(folders)))
    rows = [whole_row(record) for record in records]
    return [(records[i], rows[i]) for i in chosen(rows, filters)]


def _print(rows: Sequence[Mapping[str, Any]], format: Format, columns: Sequence[str]) -> None:
    """
    Args:
        columns: of the text.
    """
    if format == "json":
        print(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows], indent=2))
    elif format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: no_formula(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows
        )
        print(text.getvalue(), end="")
    elif rows:
        shown = [column for column in columns if any(row.get(column) is not None for row in rows)]
        texts = [list(shown)] + [[_text(row.get(column)) for column in shown] for row in rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        for line in texts:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _bytes(number: int) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
