"""Runs that differ in seeds alone, brought together."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_lightning.config.identity import digest_of, without
from ssl_lightning.reports.records import Record

_WHAT = ("method", "dataset", "subset", "fraction", "budget")


@dataclass(frozen=True)
class Cell:
    """Results of the seeds of one configuration."""

    records: Sequence[Record]
    variant: str
    """Keys and values in which it differs from cells of the same method, dataset, subset and fraction."""
    shown: tuple[str, ...]
    """Which parts of the identity vary in the report."""

    @property
    def results(self) -> list[Mapping[str, Any]]:
        return [record.results for record in self.records]

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.results[0]["identity"]

    @property
    def fraction(self) -> float:
        return self.identity["fraction"]

    @property
    def line(self) -> str:
        """Label of the cells that differ from this one in the fraction alone."""
        parts = [str(self.identity[k]) for k in ("method", "dataset", "subset") if k in self.shown or k == "method"]
        parts += [f"equal {self.identity['budget']}"] if "budget" in self.shown else []
        return " ".join([*parts, self.variant]).strip()

    def values(self, name: str, cost: bool = False) -> list[float]:
        part = "cost" if cost else "metrics"
        return [r[part][name] for r in self.results if name in r[part]]

    def statistics(self, name: str, cost: bool = False) -> tuple[float, float]:
        """Mean and standard deviation (n − 1) over seeds; the latter is NaN for one seed."""
        values = self.values(name, cost)
        mean = statistics.fmean(values) if values else float("nan")
        return mean, statistics.stdev(values) if len(values) > 1 else float("nan")


def cells_of(records: Iterable[Record]) -> list[Cell]:
    """Cells of the finished runs, sorted by what they are."""
    members: dict[str, list[Record]] = {}
    for record in records:
        if record.status == "finished":
            members.setdefault(digest_of(_settings(record)), []).append(record)
    identities = {cell: tuple(m[0].results["identity"][key] for key in _WHAT) for cell, m in members.items()}
    shown = tuple(key for i, key in enumerate(_WHAT) if len({what[i] for what in identities.values()}) > 1)
    settings = {cell: dict(_flat(_settings(m[0]))) for cell, m in members.items()}
    alike: dict[tuple[Any, ...], list[dict[str, str]]] = {}
    for cell, what in identities.items():
        alike.setdefault(what, []).append(settings[cell])
    varying = {what: _varying(others) for what, others in alike.items()}
    cells = []
    for cell, records_of_cell in members.items():
        own = {key: value for key, value in settings[cell].items() if key in varying[identities[cell]]}
        names = _short(own)
        variant = ", ".join(f"{names[key]}={value}" for key, value in sorted(own.items()))
        cells.append(Cell(records_of_cell, variant, shown))
    return sorted(
        cells,
        key=lambda c: (
            *(c.identity[k] for k in ("dataset", "budget", "method", "subset")),
            c.variant,
            c.fraction,
        ),
    )


def _varying(settings: Sequence[Mapping[str, str]]) -> set[str]:
    """Keys that some lack, or have with another value."""
    values: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for one in settings:
        counts.update(one.keys())
        for key, value in one.items():
            values.setdefault(key, set()).add(value)
    return {key for key in values if len(values[key]) > 1 or counts[key] < len(settings)}


def _short(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where another ends alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def _settings(record: Record) -> dict[str, Any]:
    """What the runs of its cell have in common: its config but for seeds, and for what changes no encoder."""
    return without(record.config, [*record.identity.ignored, *record.identity.seeds])


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys that can tell cells apart; copies of other nodes (a method's backbone and optimizer) left out."""
    for key, value in node.items():
        path = prefix + key
        if prefix.startswith("method.") and key in ("backbone", "optimizer"):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            yield path, str(value)
