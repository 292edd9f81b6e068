"""ssl_lightning beside its peers, and beside its own cost models: one command, by turns.

    python -m benchmarks.peers [--turns 3] [--only a c ...] [--folder PATH] [--small] [--json FILE]

Each turn measures ours, theirs, theirs..., and then the next turn; shown is the median of turns, with its range, also
of ratios, which are formed turn by turn. A part that fails says so in one line, a peer that is not installed is named,
and the others go on.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.peers import evaluation, gessl, losses, selection, starting, training, views
from benchmarks.peers.figures import Options, Row
from ssl_lightning.files import write_json
from ssl_lightning.runs.results import environment


class Part(NamedTuple):
    title: str
    rows: Callable[[Options], Iterator[Row]]


PARTS = {
    "a": Part("Two views of images of 32×32", views.rows),
    "b": Part("SimCLR with resnet_tiny on images of 32×32", training.rows),
    "c": Part("NT-Xent, forward and backward", losses.rows),
    "d": Part(f"A GeSSL step of {gessl.TASKS} tasks, in SimCLR steps on one of them", gessl.rows),
    "e": Part("Subset selection", selection.rows),
    "f": Part("Probes on frozen features", evaluation.rows),
    "g": Part("Starting", starting.rows),
}


def shown(values: Sequence[float]) -> str:
    """Median (range)."""

    def number(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
    return number(statistics.median(values)) + spread


def table(title: str, rows: Sequence[Row]) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    made = Table(title=title, title_justify="left")
    made.add_column("", no_wrap=True)
    made.add_column("", no_wrap=True)
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True)
    former = None
    for row in rows:
        figures = [shown(row.figures[column]) if column in row.figures else "" for column in columns]
        made.add_row(row.what if row.what != former else "", row.who, *figures)
        former = row.what
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    titles = "; ".join(f"{letter}: {part.title}" for letter, part in PARTS.items())
    parser.add_argument("--turns", type=int, default=3, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=titles)
    parser.add_argument("--folder", type=Path, help="images to take beside noise")
    parser.add_argument("--small", action="store_true", help="sizes that only show that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write each turn's figures")
    given = parser.parse_args(arguments)
    options = Options(given.turns, given.small, given.folder)

    console = Console(width=None if sys.stdout.isatty() else 200)
    machine = f"torch {torch.__version__}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads"
    console.print(f"{machine}; of {options.turns} turns the median (range); load of others: {os.getloadavg()[0]:.1f}")
    figures: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for letter in given.only:
        rows: list[Row] = []
        try:
            # One by one: those before a failure are shown.
            for row in PARTS[letter].rows(options):
                rows.append(row)  # noqa: PERF402
        except Exception as error:
            line = str(error).partition("\n")[0]
            print(f"({letter}) has failed: {type(error).__name__}: {line}", file=sys.stderr, flush=True)
            failed.append(letter)
        if rows:
            console.print(table(f"({letter}) {PARTS[letter].title}", rows))
        figures[letter] = [row._asdict() for row in rows]
        if given.json:  # after each part: what there is outlives what breaks later
            measured = {"options": options._asdict() | {"folder": str(given.folder)}, "failed": failed}
            write_json(given.json, {"environment": environment(False, 1)} | measured | {"parts": figures})
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
