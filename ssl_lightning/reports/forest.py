"""Differences from a reference as a picture: a row each, with its interval."""

from collections.abc import Sequence
from pathlib import Path

from ssl_lightning.reports import figures
from ssl_lightning.reports.differences import Against, Compared
from ssl_lightning.reports.labels import Rows
from ssl_lightning.reports.paired import FEW, Difference

MOST_ROWS = 60
"""More fill no page."""
COLOURS = {1: "tab:blue", 0: "tab:grey", -1: "tab:red"}
"""Of what is separated from the reference for the better, of what is not, and for the worse."""


def worth_drawing(compared: Compared) -> bool:
    """Whether there are several rows, not too many, and one that seeds can separate."""
    seeds = max((found.seeds for one in compared.against for found in one.found.values() if found), default=0)
    return 1 < len(compared.against) <= MOST_ROWS and seeds >= FEW


@figures.own_style()
def forest(compared: Compared, columns: Sequence[str], path: Path, title: str, narrow: bool = False) -> Path:
    """Paired differences with 95 % intervals, the largest of the first column on top; what is not separated is grey.

    Args:
        columns: of the tables, a panel each.
    """
    against = sorted(compared.against, key=lambda one: _mean(one, columns[0]), reverse=True)
    several = len({one.cell.fraction for one in against}) > 1
    labels = [one.cell.line + f", fraction {one.cell.fraction:g}" * several for one in against]
    figure, axes = figures.panels(len(columns), narrow)
    rows = Rows(labels, narrow)
    rows.fit(figure, len(axes))
    for column, axis in zip(columns, axes, strict=True):
        axis.axvline(0, color="black", linewidth=0.8)
        for at, one in zip(rows.at, against, strict=True):
            if (found := one.found.get(column)) is not None:
                half = [[found.mean - found.low], [found.high - found.mean]] if found.seeds > 1 else None
                colour = COLOURS[_sign(found)]
                axis.errorbar([found.mean], [at], xerr=half, color=colour, marker="o", markersize=5, capsize=3)
        rows.label(axis, narrow or axis is axes[0])
        axis.set_xlabel(f"{column}: difference, 95 % interval")
    return figures.save(figure, path, f"{title} from {compared.reference.name}")


def _mean(one: Against, column: str) -> float:
    found = one.found.get(column)
    return float("-inf") if found is None else found.mean


def _sign(found: Difference) -> int:
    return 0 if not found.separated else 1 if found.mean > 0 else -1
