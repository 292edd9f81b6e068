"""The table of transfer: what the same encoders are worth on other data."""

from collections.abc import Sequence

import numpy as np

from ssl_lightning.evaluation.protocol import STANDARD
from ssl_lightning.reports.cells import WHAT, Cell
from ssl_lightning.reports.comparison import (
    METRICS,
    Quantity,
    Row,
    columns_of,
    mean_of,
    quantity,
    shown_of,
    what_of,
)

EXPLANATION = (
    "linear % and k-NN %, as above, of the same encoders on the data that they were pretrained on and on others; the "
    "tables above have the other metrics, and say of how many seeds each is: of one, where there is no ±. mean "
    "rank: 1 is the best, over all columns but those of own data, among the encoders that have each of "
    "them; it ranks means over seeds, whether or not they are separated."
)
PROBES = {"linear": ("linear/top1", "linear_sgd/top1"), "k-NN": ("knn/top1",)}
"""Those of the table of transfer, with the metrics that any of its protocols has of them."""
OWN = "own data"


def transfer(cells: Sequence[Cell]) -> list[Row]:
    """Where encoders were evaluated on other data than those of pretraining: a row for each of these encoders, with
    its linear and k-NN accuracy on each dataset, under each protocol of this report; and where several encoders have
    all of these, their mean ranks."""
    moved = moved_encoders(cells)
    headings = headings_of([cell for here in moved for cell in here])
    order = sorted(dict.fromkeys(headings.values()), key=lambda heading: not heading.startswith(OWN))
    ranks: dict[str, list[Quantity]] = {}
    columns: dict[str, list[Quantity]] = {}
    for probe, names in PROBES.items():
        found = {
            heading: [accuracy([c for c in here if headings[looked_at(c)] == heading], names) for here in moved]
            for heading in order
        }
        found = {heading: column for heading, column in found.items() if any(q.value is not None for q in column)}
        ranks |= _mean_ranks(probe, [column for heading, column in found.items() if not heading.startswith(OWN)])
        columns |= {f"{probe} % {heading}": column for heading, column in found.items()}
    shown, variants = shown_of(cells), any(cell.variant for here in moved for cell in here)
    return [
        what_of(here[0], shown, {}, variants) | {name: column[i] for name, column in (ranks | columns).items()}
        for i, here in enumerate(moved)
    ]


def encoder_of(cell: Cell) -> tuple[str, ...]:
    """What a cell has in common with those of the same encoders under other protocols."""
    return (*(str(cell.identity[key]) for key in WHAT), cell.variant)


def moved_encoders(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells, under the standard suite, of each encoder that was evaluated on other data."""
    encoders: dict[tuple[str, ...], list[Cell]] = {}
    for cell in (cell for cell in cells if not columns_of([cell])):
        encoders.setdefault(encoder_of(cell), []).append(cell)
    return [here for here in encoders.values() if any(c.evaluated_on != c.identity["dataset"] for c in here)]


def looked_at(cell: Cell) -> tuple[str, str]:
    """On what, and under which protocol."""
    return cell.evaluated_on, cell.protocol


def headings_of(cells: Sequence[Cell]) -> dict[tuple[str, str], str]:
    """For each dataset and protocol. Settings that are the same on all other data go without saying; what own data have
    under settings of their own, as in a run's results, is told apart."""

    def settings(cell: Cell) -> str:
        return cell.protocol.removeprefix(f"on {cell.evaluated_on}").removeprefix(", ")

    others = {settings(cell) for cell in cells if cell.evaluated_on != cell.identity["dataset"]}
    silent = {"", STANDARD} | (others if len(others) == 1 else set())
    return {
        looked_at(cell): ", ".join(
            [f"on {cell.evaluated_on}" if settings(cell) in others else OWN, *({settings(cell)} - silent)]
        )
        for cell in cells
    }


def _mean_ranks(probe: str, columns: Sequence[Sequence[Quantity]]) -> dict[str, list[Quantity]]:
    """Of the rows that have a number in each of several columns, where these are several; equal ones share theirs."""
    if len(columns) < 2:
        return {}
    values = np.array([[np.nan if q.value is None else q.value for q in column] for column in columns])
    whole = ~np.isnan(values).any(0)
    if whole.sum() < 2:
        return {}
    known = values[:, whole]
    better = known[:, None, :] > known[:, :, None]
    ties = (known[:, None, :] == known[:, :, None]).sum(2) - 1
    means = iter((1 + better.sum(2) + ties / 2).mean(0))
    return {f"{probe} mean rank": [quantity(float(next(means)), ".2f") if one else quantity() for one in whole]}


def accuracy(cells: Sequence[Cell], names: Sequence[str]) -> Quantity:
    """In %, of the first that was measured."""
    for cell in cells:
        for name in names:
            if cell.values(name):
                return mean_of(*cell.statistics(name), METRICS["linear/top1"])
    return quantity()
