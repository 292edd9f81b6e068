"""A run as a row: what it is, how it stands, its metrics and cost, its settings. Imports nothing heavy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_lightning.reports.records import Record
from ssl_lightning.runs.former import identity_of_folder

WHAT = ("method", "dataset", "subset", "fraction", "seed", "budget")
ELSEWHERE = ("seed", "budget", "subset.fraction", "method.backbone", "method.optimizer")
"""Keys of a config that say what stands in another column."""
FORMULA = tuple("=+-@\t\r")
"""How a text begins that a spreadsheet would compute."""


def row_of(record: Record, results: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is. What neither its results nor its config say, the name of its folder may."""
    said, named = results.get("identity", {}), identity_of_folder(record.run.id)
    own = {key: getattr(record.identity, key) for key in WHAT}
    if not record.identity.method:  # damaged, or of a former version
        own |= {key: value for key, value in named.items() if key in WHAT}
    what = {key: said.get(key, own[key]) for key in WHAT}
    return {"run": record.run.id, "folder": str(record.run.folder), "status": record.status, **what}


def measured(results: Mapping[str, Any]) -> dict[str, Any]:
    return {**results["metrics"], **{f"cost/{name}": value for name, value in results["cost"].items()}}


def whole_row(record: Record) -> dict[str, Any]:
    """Of a run by itself: what it is, the metrics of its own evaluation, its cost, the reason where it has failed, and
    all settings by dotted keys."""
    numbers = measured(record.results) if record.results else {}
    reason = {"reason": record.reason} if record.error else {}
    return {**row_of(record, record.results), **numbers, **reason, **dict(flat(record.config))}


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config, but for what stands in another column."""
    for key, value in node.items():
        path = prefix + key
        if path in ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}.")
        else:
            yield path, value


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All of them, in the order in which they appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def no_formula(text: str) -> str:
    """With an apostrophe before what a spreadsheet would compute."""
    return f"'{text}" if text.startswith(FORMULA) else text
