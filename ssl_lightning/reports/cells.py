"""Runs that differ in seeds alone, brought together."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ssl_lightning.config.identity import digest_of, without
from ssl_lightning.evaluation.protocol import STANDARD, Protocol, protocol_in, same
from ssl_lightning.reports.records import Record
from ssl_lightning.runs.run import MEASURED

WHAT = ("method", "dataset", "subset", "fraction", "budget")
CONTENTS = "contents"
STOPPED = "stopped"
"""Beside the keys of a config."""
EVALUATING = "evaluation_seconds"
"""What of a run's cost is that of one protocol."""
MEASURED_AGAIN = ("metrics", "spectra", "untrained", "test_images", "columns", "explanation")
"""What of an evaluation takes the place of the run's own."""
_LENGTH = ("batch_size", "trainer.")
"""Beginnings of the keys that say how long is trained."""
_IMPLIED = ("method.", "subset.", CONTENTS)
"""Beginnings of the keys that differ where methods or subsets do."""
_EMBEDDER = "subset.embedder."
"""Beginning of the keys of a run that only a subset with `pseudo_labels` has, and its name says."""
MANY = 3
_CLASS = "._target_"
"""End of the keys that say which component is chosen."""


@dataclass(frozen=True)
class Cell:
    """Results of the seeds of one configuration under one protocol."""

    records: Sequence[Record]
    results: Sequence[Mapping[str, Any]]
    """Of each record, with the metrics of the protocol."""
    protocol: str
    """In words."""
    evaluated_on: str
    """Name of the data."""
    suite: str
    """Name of the evaluation's class, where it is not the standard suite."""
    variant: str
    """Keys and values that vary in the report, other than by method, dataset, subset and fraction."""
    usual: str
    """What it does not say, as most cells of the method share it: where they differ in `MANY` settings and more."""
    backbone: str
    """What of the variant belongs to the backbone: untrained encoders differ in that alone."""
    shown: tuple[str, ...]
    """Which parts of the identity, and whether the protocol, vary in the report."""

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


class _Member(NamedTuple):
    record: Record
    results: Mapping[str, Any]
    protocol: Protocol

    @property
    def what(self) -> tuple[Any, ...]:
        return tuple(self.results["identity"][key] for key in WHAT)


def cells_of(records: Iterable[Record]) -> list[Cell]:
    """Cells of the runs that have results, sorted by what they are. Those of a protocol stand together, most runs
    first, and of as many the standard one."""
    members = _known([one for record in records if record.status in MEASURED for one in _members(record)])
    cells: dict[str, list[_Member]] = {}
    for one in members:
        cells.setdefault(digest_of([_settings(one.record), one.protocol.digest]), []).append(one)
    identities = {digest: ones[0].what for digest, ones in cells.items()}
    shown = tuple(key for i, key in enumerate(WHAT) if len({what[i] for what in identities.values()}) > 1)
    names = _names({digest: ones[0] for digest, ones in cells.items()})
    if len(set(names.values())) > 1 or set(names.values()) - {STANDARD}:
        shown += ("protocol",)
    settings = {digest: dict(_flat(_settings(ones[0].record))) for digest, ones in cells.items()}
    varying = _varying([(identities[digest], settings[digest]) for digest in cells])
    usual = _usual([(identities[digest], settings[digest]) for digest in cells])
    classes = _short(value for some in settings.values() for key, value in some.items() if key.endswith(_CLASS))
    made = []
    for digest, ones in cells.items():
        what = dict(zip(WHAT, identities[digest], strict=True))
        group = what["method"], what["dataset"], what["subset"]
        own = {
            key: value
            for key, value in settings[digest].items()
            if key in varying[group] and usual[group].get(key) != value
        }
        own = _without_implied(_without_copies(own), list(settings.values()))
        words = _words(own, classes)
        variant = ", ".join(words.values())
        unsaid = ", ".join(_words(_without_copies(usual[group]), classes).values())
        backbone = ", ".join(word for key, word in words.items() if key.startswith("backbone."))
        runs = [one.record for one in ones]
        results, protocol = [one.results for one in ones], ones[0].protocol
        suite = str(protocol.settings.get("suite", ""))
        made.append(Cell(runs, results, names[digest], protocol.dataset, suite, variant, unsaid, backbone, shown))
    numbers = Counter(cell.protocol for cell in made for _ in cell.results)
    return sorted(
        made,
        key=lambda c: (
            c.identity["dataset"],
            -numbers[c.protocol],
            c.protocol != STANDARD,
            c.protocol,
            *(c.identity[k] for k in ("budget", "method", "subset")),
            c.variant,
            c.fraction,
        ),
    )


def _members(record: Record) -> Iterator[_Member]:
    """The run under the protocol of its results, and under others."""
    known = [protocol_in(record.results)]
    yield _Member(record, record.results, known[0])
    for made in record.evaluations:
        protocol = protocol_in(made)
        if not any(same(protocol, other) for other in known):  # each once: one run is one seed
            known.append(protocol)
            rest = {
                key: value
                for key, value in record.results.items()
                if key not in ("untrained", "test_images", "columns", "explanation")
            }
            measured = {key: made[key] for key in MEASURED_AGAIN if key in made}
            cost = {key: value for key, value in rest["cost"].items() if key != EVALUATING}
            cost |= {key: value for key, value in made.get("cost", {}).items() if key == EVALUATING}
            yield _Member(record, {**rest, **measured, "cost": cost}, protocol)


def _known(members: Sequence[_Member]) -> list[_Member]:
    """Former versions did not keep what data they evaluated on, nor how it was read: taken for what the others have,
    where that is one."""
    known = list(members)
    for part in ("content", "reading"):
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for one in known:
            if value := getattr(one.protocol, part):
                found.setdefault(_without_data(one.protocol), {})[digest_of([value])] = value
        for i, one in enumerate(known):
            values = found.get(_without_data(one.protocol), {})
            if not getattr(one.protocol, part) and len(values) == 1:
                known[i] = one._replace(protocol=replace(one.protocol, **{part: next(iter(values.values()))}))
    return known


def _without_data(protocol: Protocol) -> tuple[str, str]:
    return protocol.dataset, digest_of(protocol.settings)


def _names(members: Mapping[str, _Member]) -> dict[str, str]:
    """Protocols in words: with how images were read where that differs, and a part of their digests where data do."""
    names = {key: one.protocol.name(one.results["identity"]["dataset"]) for key, one in members.items()}
    alike: dict[tuple[str, str], list[str]] = {}
    for key, one in members.items():
        alike.setdefault((one.protocol.dataset, names[key]), []).append(key)
    for keys in alike.values():
        readings = {key: {what: str(how) for what, how in members[key].protocol.reading.items()} for key in keys}
        differing = sorted(_differing(list(readings.values())))
        data: dict[str, set[str]] = {}
        for key in keys:
            words = [f"{what}={readings[key].get(what, 'unknown')}" for what in differing]
            names[key] = ", ".join([*([names[key]] if names[key] != STANDARD or not words else []), *words])
            data.setdefault(names[key], set()).add(members[key].protocol.content)
        for key in keys:
            names[key] += "" if len(data[names[key]]) == 1 else f", data {members[key].protocol.digest[:4]}"
    return names


def _varying(cells: Sequence[tuple[tuple[Any, ...], Mapping[str, str]]]) -> dict[tuple[str, str, str], set[str]]:
    """By method, dataset and subset: which keys tell its cells from one another, whatever their fractions; and which
    do so among all of a dataset, but for what method and subset imply; and of all cells, how long is trained."""
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    datasets: dict[str, list[Mapping[str, str]]] = {}
    for (method, dataset, subset, *_), settings in cells:
        groups.setdefault((method, dataset, subset), []).append(settings)
        datasets.setdefault(dataset, []).append(settings)
    lengths = {key for key in _differing([settings for _, settings in cells]) if key.startswith(_LENGTH)}
    lengths |= {STOPPED}  # even where all are
    beside = {
        dataset: {key for key in _differing(settings) if not key.startswith(_IMPLIED)}
        for dataset, settings in datasets.items()
    }
    return {group: _differing(settings) | beside[group[1]] | lengths for group, settings in groups.items()}


def _usual(cells: Sequence[tuple[tuple[Any, ...], Mapping[str, str]]]) -> dict[tuple[str, str, str], dict[str, str]]:
    """By method, dataset and subset whose cells differ in many settings: the values that more than half of them have.
    Two cells that differ still do where these are left out."""
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for (method, dataset, subset, *_), settings in cells:
        alike = groups.setdefault((method, dataset, subset), [])
        if settings not in alike:  # but under another protocol
            alike.append(settings)
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for group, alike in groups.items():
        keys = _differing(alike) - {STOPPED}
        counts = {key: Counter(one[key] for one in alike if key in one) for key in keys if len(keys) >= MANY}
        most = {key: counted.most_common(1)[0] for key, counted in counts.items()}
        found[group] = {key: value for key, (value, number) in most.items() if 2 * number > len(alike)}
    return found


def _without_copies(own: Mapping[str, str]) -> dict[str, str]:
    """Settings that stand at the top, too, are named there alone."""
    return {key: value for key, value in own.items() if "." not in key or own.get(_last(key)) != value}


def _words(settings: Mapping[str, str], classes: Mapping[str, str]) -> dict[str, str]:
    """`name=value` of each, by its key."""
    short = _short(settings)
    return {key: f"{short[key]}={classes.get(value, value)}" for key, value in sorted(settings.items())}


def _differing(settings: Sequence[Mapping[str, str]]) -> set[str]:
    """Keys that some lack, or have with another value; parts of the identity left out."""
    values: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    for one in settings:
        counts.update(one.keys())
        for key, value in one.items():
            values.setdefault(key, set()).add(value)
    differ = {key for key in values if len(values[key]) > 1 or counts[key] < len(settings)}
    return differ - {"subset.fraction", "budget"}


def _without_implied(own: Mapping[str, str], others: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Settings of a cell, but for those that all cells have that chose the same component: its name says them."""
    implied: set[str] = set()
    for key in (key for key in own if key.endswith(_CLASS)):
        alike = [some for some in others if some.get(key) == own[key]]
        differing = _differing(alike)
        implied |= {at for at in own if at.startswith(key.removesuffix("_target_")) and at not in {key, *differing}}
    embedded = [some for some in others if any(key.startswith(_EMBEDDER) for key in some)]
    implied |= {at for at in own if at.startswith(_EMBEDDER)} - _differing(embedded)
    return {key: value for key, value in own.items() if key not in implied}


def _short(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where another ends alike. The class of a component goes by
    the component's name."""
    plain = {key: key.removesuffix(_CLASS) for key in keys}
    last = {key: _last(name) for key, name in plain.items()}
    return {key: name if list(last.values()).count(name) == 1 else plain[key] for key, name in last.items()}


def _last(key: str) -> str:
    """Part of a dotted key."""
    return key.rpartition(".")[2]


def _settings(record: Record) -> dict[str, Any]:
    """What the runs of its cell have in common: its config but for seeds, and for what changes no encoder; and what
    they have read."""
    config = without(record.config, [*record.identity.ignored, *record.identity.seeds])
    stopped = {STOPPED: "early"} if record.status == "stopped" else {}
    return {**config, CONTENTS: dict(record.identity.contents), **stopped}


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
