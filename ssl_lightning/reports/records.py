"""What a report knows of each run, read once."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.progress import Progress, how_far, read_progress
from ssl_lightning.runs.reading import Damaged
from ssl_lightning.runs.run import MEASURED, Identity, Run, Status

MAX_POINTS = 200  # of a curve


class Curve(NamedTuple):
    """A column of metrics.csv: optimizer steps, and the values that were logged at them."""

    name: str
    steps: list[int]
    values: list[float]


class Record(NamedTuple):
    """A run as it was found.

    Args:
        identity: what its config says it is.
        results: of a run that is finished or stopped, else empty.
        evaluations: of it, under other protocols than that of its results.
        error: of a failed or damaged run, else empty.
        damage: of files of the run that were passed over.
        reached: how far its training is, where there are no results and this is known.
    """

    run: Run
    status: Status
    identity: Identity
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]
    curves: Sequence[Curve]
    error: str
    damage: Sequence[str] = ()
    reached: Progress | None = None

    @property
    def progress(self) -> str:
        """How far a run is that has not finished, in words; empty where nobody knows."""
        if self.status != "stopped":
            return self.reached.in_words(self.status == "running") if self.reached else ""
        return f"after {self.results['cost']['optimizer_steps']:,} of {self.results['planned_steps']:,} optimizer steps"

    @property
    def steps(self) -> int:
        """Optimizer steps that it has taken, as far as anybody knows."""
        reached = self.reached.step if self.reached else 0
        return self.results.get("cost", {}).get("optimizer_steps", 0) if self.results else reached

    @property
    def reason(self) -> str:
        """The first line of the error."""
        return self.error.strip().partition("\n")[0]


def records_of(runs: Iterable[Run]) -> list[Record]:
    """A record for each id, see `joined`."""
    return joined([record_of(run, run.status) for run in runs])


def joined(records: Iterable[Record]) -> list[Record]:
    """One for each run, whatever its folder and its subset are called: of one that several sweeps or machines have
    made, the one that has come furthest, with all that it was evaluated with in any of them."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.identity.known_as(record.run.id), []).append(record)
    return [_joined(several) for several in found.values()]


def _joined(several: Sequence[Record]) -> Record:
    *others, furthest = sorted(several, key=lambda record: how_far(record.status, record.steps))
    alike = [one for one in others if one.results and one.steps == furthest.steps]  # else the encoder is another
    more = [made for one in alike for made in (one.results, *one.evaluations)]
    return furthest._replace(evaluations=[*furthest.evaluations, *more])


def record_of(run: Run, status: Status) -> Record:
    """A run of which a file is damaged is not compared, and stops no other."""
    damage: list[str] = []
    try:
        identity, config = run.described()
        measured = status in MEASURED
        results = run.results() if measured else {}
        evaluations = run.evaluations(lambda error: damage.append(str(error))) if measured else []
        steps = results["cost"].get("optimizer_steps", 0) if measured else 0
        current = [one for one in evaluations if (one.get("optimizer_steps") or steps) == steps]
        if former := len(evaluations) - len(current):
            damage.append(
                f"{run.folder / 'evaluations'} holds {former} made before the run had taken its {steps:,} optimizer "
                "steps, not shown. ssl-evaluate makes it anew."
            )
        error = run.error() if status == "failed" else ""
    except (UserError, OSError, ValueError) as wrong:
        return Record(run, "damaged", Identity(), {}, {}, [], [], str(wrong))
    curves, unread = _curves(run)
    reached = None if measured else read_progress(run.progress_file)
    return Record(run, status, identity, config, results, current, curves, error, [*damage, *unread], reached)


def _curves(run: Run) -> tuple[list[Curve], list[str]]:
    """All that was logged against optimizer steps, thinned; and what could not be read."""
    try:
        rows = read_metrics(run.metrics_file)
        return _of_rows(rows), []
    except Damaged as error:
        return [], [f"{error.what}. Its curves are not shown."]
    except (OSError, ValueError, csv.Error) as error:
        return [], [f"{run.metrics_file} is damaged: {in_one_line(error)}. Its curves are not shown."]


def _of_rows(rows: Sequence[Mapping[str, str]]) -> list[Curve]:
    steps = np.array([int(row["step"]) for row in rows])
    curves = []
    for name in rows[0] if rows else ():
        if name in ("step", "epoch"):
            continue
        values = np.array([float(row[name] or "nan") for row in rows])
        logged = np.flatnonzero(np.isfinite(values))
        if logged.size:
            kept = logged[_thinned(values[logged])]
            curves.append(Curve(name, steps[kept].tolist(), values[kept].tolist()))
    return curves


def _thinned(values: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Indices of both ends and of the lowest and the highest of equal stretches: no peak is lost."""
    n, stretches = len(values), MAX_POINTS // 2 - 1
    if n <= MAX_POINTS:
        return np.arange(n)
    stretch = np.arange(n) * stretches // n
    by_value = np.lexsort((values, stretch))
    first = np.searchsorted(stretch, np.arange(stretches))
    last = np.append(first[1:], n) - 1
    return np.unique(np.concatenate([[0, n - 1], by_value[first], by_value[last]]))
