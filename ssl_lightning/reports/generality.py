"""What GeSSL's paper asks of a representation, side by side: universality on its own data, and what it is worth on
others."""

import statistics
from collections.abc import Sequence

from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import METRICS, Quantity, Row, columns_of, mean_of, quantity, shown_of, what_of
from ssl_lightning.reports.transfer import PROBES, accuracy, encoder_of, headings_of, looked_at, moved_encoders

SUITE = "Universality"
MEAN = "mean linear % elsewhere"
EXPLANATION = (
    "Of the same encoders, means ± s.d. over seeds: linear % and k-NN % on the data of universality; σ, in nats, of "
    "what a few steps on a task of these data change, without labels and with them, little in a good encoder, and "
    "in a collapsed one; linear % on other data than those of pretraining, and its mean over these, where all are "
    "measured under one protocol. No difference is tested here."
)


def generality(cells: Sequence[Cell]) -> list[Row]:
    """A row for each encoder of which both universality and the accuracy on other data are known, and for each protocol
    that universality was measured under."""
    moved = {encoder_of(here[0]): here for here in moved_encoders(cells)}
    found = [cell for cell in cells if cell.suite == SUITE and encoder_of(cell) in moved]
    headings = headings_of([cell for one in found for cell in moved[encoder_of(one)]])
    away = [c for one in found for c in moved[encoder_of(one)] if c.evaluated_on != c.identity["dataset"]]
    data = {headings[looked_at(cell)]: cell.evaluated_on for cell in away}
    alike = all(heading == f"on {name}" for heading, name in data.items())  # else they are of several protocols
    own = {name: column for name, column in columns_of(found).items() if _is_of_universality(name)}
    protocols = len({cell.protocol for cell in found}) > 1
    shown, variants = shown_of(cells), any(cell.variant for cell in found)
    rows: list[Row] = []
    for cell in found:
        home, here = cell.identity["dataset"], moved[encoder_of(cell)]
        others = {
            heading: accuracy([c for c in here if headings[looked_at(c)] == heading], PROBES["linear"])
            for heading, name in data.items()
            if name != home
        }
        rows.append(
            what_of(cell, shown, {"universality": cell.protocol} if protocols else {}, variants)
            | {column: mean_of(*cell.statistics(name), column) for name, column in own.items()}
            | {MEAN: _mean(list(others.values())) if alike else quantity()}
            | {f"linear % {heading}": others.get(heading, quantity()) for heading in data}
        )
    return rows


def _is_of_universality(name: str) -> bool:
    """Whether it says what its paper calls discriminability, or σ."""
    return name in METRICS or (name.startswith("sigma_") and not name.endswith("_gain"))


def _mean(accuracies: Sequence[Quantity]) -> Quantity:
    """Over datasets; none where one is missing, as it would be that of easier or harder ones."""
    values = [one.value for one in accuracies if one.value is not None]
    return quantity(statistics.fmean(values), ".1f") if len(values) == len(accuracies) > 1 else quantity()
