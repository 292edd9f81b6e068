"""Which cheap metric says what the linear probe says: rank correlation over runs, as an answer to which method to
choose where there are no labels."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import MISSING, Quantity, Row
from ssl_lightning.reports.records import Record

TARGET = "linear/top1"
LEAST = 5
"""Runs below which no rank correlation is shown."""
Z = 1.959964
EXPLANATION = (
    "Spearman's ρ between a metric and linear % over runs [95 % interval, Bonett and Wright 2000], seeds of a cell "
    "counted as runs of their own. chosen: linear % of the run that the metric alone would choose, mean of those "
    "that it does not tell apart; best: of all. labels: whether the metric needs them. Bold: the interval leaves out 0."
)


class Metric(NamedTuple):
    """A metric that may stand for the linear probe.

    Args:
        goodness: of its value: larger is better.
        labels: whether it needs them.
    """

    name: str
    title: str
    goodness: Callable[[float], float] = float
    labels: bool = False


METRICS = (
    Metric("representation/rankme", "RankMe r"),
    Metric("representation/effective_rank", "effective rank r"),
    Metric("embedding/rankme", "RankMe z"),
    Metric("spectrum/r/lidar", "LiDAR r"),
    Metric("spectrum/r/alpha_req", "α-ReQ r, nearest to 1", lambda value: -abs(value - 1)),
    Metric("spectrum/r/nesum", "NESum r"),
    Metric("spectrum/r/alignment", "alignment r, least", lambda value: -value),
    Metric("spectrum/r/uniformity", "uniformity r, least", lambda value: -value),
    Metric("knn/top1", "k-NN %", labels=True),
    Metric("linear_5shot/top1", "5-shot %", labels=True),
    Metric("online/val_top1", "online probe %", labels=True),
)
"""Those of spectra were watched in training; the last value of a curve counts."""


class Agreement(NamedTuple):
    """ρ in [−1, 1], the ends of its interval, and how many runs it is of."""

    rho: float
    low: float
    high: float
    runs: int


def agreement(cells: Sequence[Cell]) -> list[Row]:
    """A row for each metric that at least `LEAST` runs of these cells have; of one dataset under one protocol."""
    runs = [
        (results["metrics"], _watched(record))
        for cell in cells
        for record, results in zip(cell.records, cell.results, strict=True)
    ]
    rows: list[Row] = []
    for metric in METRICS:
        pairs = list(_pairs(runs, metric))
        if (found := spearman(pairs)) is None:
            continue
        largest = max(x for x, _ in pairs)
        chosen = statistics.fmean(y for x, y in pairs if x == largest)  # the metric does not tell these apart
        interval = f"{found.rho:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        rows.append(
            {"metric": metric.title, "labels": "yes" if metric.labels else MISSING}
            | {"ρ": Quantity(interval, found.rho, strong=found.low > 0 or found.high < 0)}
            | {"runs": Quantity(str(found.runs), found.runs)}
            | {"chosen %": Quantity(f"{100 * chosen:.1f}", 100 * chosen)}
            | {"best %": Quantity(f"{100 * (best := max(y for _, y in pairs)):.1f}", 100 * best)}
        )
    return rows


def spearman(pairs: Sequence[tuple[float, float]]) -> Agreement | None:
    """Of pairs (x, y), ties sharing their mean rank. None of fewer than `LEAST`, or where all x or all y are one.

    The interval is Fisher's, tanh(artanh ρ ± 1.96 √((1 + ρ²/2)/(n − 3))) (Bonett and Wright 2000); of a perfect
    agreement, where that has no width, the interval of the next smaller ρ that n runs can have.
    """
    from scipy.stats import spearmanr

    n = len(pairs)
    if n < LEAST or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return None
    rho = float(np.clip(spearmanr(*zip(*pairs, strict=True)).statistic, -1, 1))
    nearest = 1 - 12 / (n**3 - n)  # perfect but for one pair of neighbours
    middle = math.atanh(max(-nearest, min(nearest, rho)))
    half = Z * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return Agreement(rho, math.tanh(middle - half), math.tanh(middle + half), n)


def _pairs(
    runs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]], metric: Metric
) -> Iterator[tuple[float, float]]:
    """How good the metric finds a run, and its linear accuracy."""
    for metrics, watched in runs:
        value = metrics.get(metric.name, watched.get(metric.name, math.nan))
        pair = metric.goodness(value), metrics.get(TARGET, math.nan)
        if all(map(math.isfinite, pair)):
            yield pair


def _watched(record: Record) -> dict[str, float]:
    """The last value of each curve."""
    return {curve.name: curve.values[-1] for curve in record.curves}
