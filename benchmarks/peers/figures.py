"""What the parts of the comparison share: figures by turns, and who is there to compare with."""

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

INSTALL = "pip install 'ssl-lightning[bench]'"
RATIO = "ours is × as fast"

Figures = dict[str, float]
"""Of one turn, by column. What is compared is `seconds`, or a rate: a column whose name ends with `/s`."""


class Options(NamedTuple):
    """How the parts are measured."""

    turns: int = 3
    small: bool = False  # sizes that only show that all of it works
    folder: Path | None = None  # of images, beside noise


class Row(NamedTuple):
    """Who does what, and the figures of each turn, by column."""

    what: str
    who: str
    figures: dict[str, list[float]]


def installed(peer: str) -> bool:
    """Whether a peer can be imported. Where it cannot, one line says so: the others are compared without it."""
    try:
        importlib.import_module(peer)
    except ImportError as error:
        print(f"{peer} is left out ({error}): {INSTALL}", file=sys.stderr, flush=True)
        return False
    return True


def by_turns(ways: Mapping[str, Callable[[], Figures]], turns: int) -> dict[str, dict[str, list[float]]]:
    """Figures of each way. All are measured once, one after another, then all again: what else the machine does meets
    each of them."""
    measured = [{who: way() for who, way in ways.items()} for _ in range(turns)]
    return {who: {column: [turn[who][column] for turn in measured] for column in measured[0][who]} for who in ways}


def contest(what: str, ways: Mapping[str, Callable[[], Figures]], turns: int) -> Iterator[Row]:
    """A row of each way. The first is ours, and others also have the ratio to it of each turn."""
    measured = by_turns(ways, turns)
    ours, *_ = ways
    for who, figures in measured.items():
        if who != ours:
            pairs = zip(_speeds(measured[ours]), _speeds(figures), strict=True)
            figures[RATIO] = [mine / other for mine, other in pairs]
        yield Row(what, who, figures)


def _speeds(figures: Mapping[str, list[float]]) -> list[float]:
    if "seconds" in figures:
        return [1 / seconds for seconds in figures["seconds"]]
    return next(values for column, values in figures.items() if column.endswith("/s"))


def seconds_of(step: Callable[[], object], at_least: float = 1.0) -> float:
    """Median of a step that is repeated for so many seconds, after one that does not count."""
    step()
    taken: list[float] = []
    while not taken or sum(taken) < at_least:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def timed(work: Callable[[], Figures]) -> Callable[[], Figures]:
    """The work's own figures, and the seconds that it takes once."""

    def measure() -> Figures:
        started = time.perf_counter()
        found = work()
        return {"seconds": time.perf_counter() - started} | found

    return measure
