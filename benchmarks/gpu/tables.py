"""Tables of what was measured, and whether it reaches the goals."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

GOALS = (("seconds_per_epoch", "≤", 1.3), ("of_bare", "≥", 0.9), ("views_share", "<", 0.1))
"""Of the fastest SimCLR on one H100."""
COMPARED = {"≤": operator.le, "≥": operator.ge, "<": operator.lt}
METHODS = ("directclr", "gessl")


def goals(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which goals the fastest SimCLR reaches; none where none was measured."""
    trained = [
        record
        for record in records
        if record["table"] == "training" and record["status"] == "ok" and not record["name"].startswith(METHODS)
    ]
    if not trained:
        return []
    fastest = min(trained, key=lambda record: record["figures"]["seconds_per_epoch"])
    made = []
    for name, sign, limit in GOALS:
        value = fastest["figures"][name]
        reached = COMPARED[sign](value, limit)
        made.append({"goal": f"{name} {sign} {limit}", "part": fastest["name"], "value": value, "reached": reached})
    return made


def show(content: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what the JSON file holds: a table for each kind of part."""
    console = console or Console(width=200)
    console.print(content["note"], markup=False)
    records = content["parts"]
    for name in dict.fromkeys(record["table"] for record in records):
        console.print(_table(name, [record for record in records if record["table"] == name]))
        console.print()
    for record in records:
        if "error" in record:
            console.print(f"{record['name']}: {record['error']}", markup=False)
    for goal in content["goals"]:
        verdict = "reached" if goal["reached"] else "missed"
        console.print(f"{goal['goal']}: {_text(goal['value'])}, {verdict} ({goal['part']})", markup=False)


def _table(name: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """A column for each figure of training, which all parts have; of others, all in one."""
    of: Mapping[str, Any] = next((record["of"] for record in records if "of" in record), {})
    table = Table(title=f"{name} ({', '.join(f'{key} {value}' for key, value in of.items())})", box=None)
    columns = list(dict.fromkeys(key for record in records for key in record.get("figures", {})))
    if name != "training":
        columns = []
    table.add_column("part", no_wrap=True)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_column("seconds of the part", justify="right")
    table.add_column("status", no_wrap=True)
    table.add_column("" if columns else "figures")
    for record in records:
        figures = record.get("figures", {})
        others = [f"{key.replace('_', ' ')} {_text(value)}" for key, value in figures.items() if key not in columns]
        cells = [*(_text(figures.get(column, "")) for column in columns), _text(record.get("seconds", ""))]
        table.add_row(record["name"], *cells, record["status"], ", ".join(others))
    return table


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
