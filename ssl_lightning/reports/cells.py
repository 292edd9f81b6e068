"""Runs that differ in seeds alone, brought together."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_lightning.configuration import IRRELEVANT, SEEDS
from ssl_lightning.runs import Run

_WHAT = ("method", "dataset", "subset", "fraction", "budget")


@dataclass(frozen=True)
class Cell:
    """Results of the seeds of one configuration."""

    results: Sequence[Mapping[str, Any]]
    variant: str
    """Keys and values in which it differs from cells of the same method, dataset, subset and fraction."""
    shown: tuple[str, ...]
    """Which parts of the identity vary in the report."""

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


def cells_of(runs: Iterable[Run]) -> list[Cell]:
    """Cells of the finished runs, sorted by what they are."""
    members: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for run in runs:
        members.setdefault(run.cell(), []).append((run.config(), run.results()))
    identities = {cell: tuple(pairs[0][1]["identity"][key] for key in _WHAT) for cell, pairs in members.items()}
    shown = tuple(key for i, key in enumerate(_WHAT) if len({what[i] for what in identities.values()}) > 1)
    cells = []
    for cell, pairs in members.items():
        alike = [dict(_flat(members[c][0][0])) for c in members if identities[c] == identities[cell]]
        own = dict(_flat(pairs[0][0]))
        varying = {k: v for k, v in own.items() if any(other.get(k, ...) != v for other in alike)}
        names = _short(varying)
        variant = ", ".join(f"{names[key]}={value}" for key, value in sorted(varying.items()))
        cells.append(Cell([results for _, results in pairs], variant, shown))
    return sorted(
        cells,
        key=lambda c: (
            *(c.identity[k] for k in ("dataset", "budget", "method", "subset")),
            c.variant,
            c.fraction,
        ),
    )


def _short(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where another ends alike."""
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: name if list(last.values()).count(name) == 1 else key for key, name in last.items()}


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys that can tell cells apart; copies of other nodes (a method's backbone and optimizer) left out."""
    for key, value in node.items():
        path = prefix + key
        if path in IRRELEVANT or path in SEEDS or (prefix.startswith("method.") and key in ("backbone", "optimizer")):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            yield path, str(value)
