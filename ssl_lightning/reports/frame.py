"""Runs as a table for Python: a pandas DataFrame, or a list of records where pandas is missing."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.config.identity import without
from ssl_lightning.errors import UserError
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import Record, records_of
from ssl_lightning.reports.rows import flat, measured, row_of
from ssl_lightning.runs.run import find_runs


def load_runs(*folders: str | Path) -> Any:
    """All runs in or below some folders, such as `runs/quickstart`, as a pandas DataFrame; where pandas is not
    installed, a list of mappings with the same columns. Reads text files alone, and executes nothing.

    A row is a run under one protocol of evaluation; a run without results has one row, too. Columns: `run`, `folder`,
    `status`; what the run is (`method`, `dataset`, `subset`, `fraction`, `seed`, `budget`); `protocol`, in words; the
    metrics by their names, such as `linear/top1`; `cost/train_seconds` and the like; and each other key of the configs
    that can change an encoder and is not the same in all runs, such as `method.temperature`. What a row has not is
    NaN, or lacks in its mapping.

    Raises:
        UserError: there are no runs.
    """
    paths = [Path(folder) for folder in folders]
    records = records_of(find_runs(paths))
    if not records:
        raise UserError(
            f"There are no runs in {', '.join(map(str, folders)) or 'no folder'}: no folder in it has a config.yaml. "
            'Give folders of runs, such as load_runs("runs/quickstart").'
        )
    settings = _differing(records)
    rows = rows_of(records, settings)
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def rows_of(records: Sequence[Record], settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each run under each of its protocols; one for a run without results.

    Args:
        settings: further columns, by the id of a run.
    """
    rows = [
        {**row_of(record, results), "protocol": cell.protocol, **measured(results), **settings.get(record.run.id, {})}
        for cell in cells_of(records)
        for record, results in zip(cell.records, cell.results, strict=True)
    ]
    return rows + [{**row_of(one, {}), **settings.get(one.run.id, {})} for one in records if not one.results]


def _differing(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """By the id of a run: the settings that runs differ in, but for what is in other columns."""
    settings = {one.run.id: dict(flat(without(one.config, list(one.identity.ignored)))) for one in records}
    values: dict[str, set[str]] = {}
    for one in settings.values():
        for key, value in one.items():
            values.setdefault(key, set()).add(repr(value))
    everywhere = {key for key in values if all(key in one for one in settings.values() if one)}
    same = {key for key in everywhere if len(values[key]) == 1}
    return {run: {key: value for key, value in one.items() if key not in same} for run, one in settings.items()}
