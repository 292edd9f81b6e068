"""All that a report on some runs says, before it is written anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ssl_lightning.errors import UserError
from ssl_lightning.reports.agreement import agreement
from ssl_lightning.reports.cells import Cell, cells_of
from ssl_lightning.reports.comparison import Row, alike, classifies, columns_of, explanation_of, kinds
from ssl_lightning.reports.differences import Compared, compared
from ssl_lightning.reports.records import Record
from ssl_lightning.runs.run import MEASURED, Status

EXPLANATION = (
    "Final-epoch weights, full test split, mean ± s.d. over seeds (n − 1). linear: logistic regression on frozen "
    "representations; k-NN: cosine, weighted; 5-shot: logistic regression on 5 labels a class; RankMe r: effective "
    "number of dimensions of the representations; seconds: training of one run."
)
EXPLANATION_OF_CLASSIFIER = (
    " classifier: the method's own, which knows only the labels of its subset; linear knows those of all training "
    "images."
)
SHOWN = 5
"""Runs without results that are named one by one though they have the same reason."""


@dataclass(frozen=True)
class Content:
    """
    Args:
        records: of all runs, finished or not.
        cells: what is compared.
        tables: cells that may stand in one table, in their order.
        differences: from a reference, of each table in which something can be compared.
    """

    records: Sequence[Record]
    cells: Sequence[Cell]
    tables: Sequence[Sequence[Cell]]
    differences: Sequence[Compared]

    @cached_property
    def heading(self) -> str:
        if not self.cells:
            return "No finished runs"
        first = self.cells[0]
        same = [f"{key} {first.identity[key]}" for key in ("dataset", "subset") if key not in first.shown]
        same += [f"equal {first.identity['budget']}"] if "budget" not in first.shown else []
        numbers = sorted({len(cell.results) for cell in self.cells})
        same.append(f"{'–'.join(map(str, numbers))} seed{'s' if numbers != [1] else ''}")
        return ", ".join(same)

    @cached_property
    def explanation(self) -> str:
        return EXPLANATION + (EXPLANATION_OF_CLASSIFIER if classifies(self.cells) else "") + self.usual

    @cached_property
    def usual(self) -> str:
        """What variants do not say."""
        unsaid = dict.fromkeys((cell.identity["method"], cell.usual) for cell in self.cells if cell.usual)
        return "".join(f" Variants of {method} leave out what most of them share: {words}." for method, words in unsaid)

    @cached_property
    def standard(self) -> list[Sequence[Cell]]:
        """The tables of the standard evaluation."""
        return [here for here in self.tables if not columns_of(here)]

    @cached_property
    def explanations(self) -> Mapping[int, str]:
        """What stands below a table, by its number: below the last standard one for all of them."""
        found = {i: explanation_of(here) + self.usual for i, here in enumerate(self.tables) if columns_of(here)}
        return found | ({len(self.standard) - 1: self.explanation} if self.standard else {})

    @cached_property
    def agreed(self) -> list[tuple[Sequence[Cell], list[Row]]]:
        """Which metrics agree with the linear probe, of tables where that can be said."""
        return [(here, rows) for here in self.standard if (rows := agreement(here))]

    @cached_property
    def unfinished(self) -> list[str]:
        """A line that says how many runs have no results, and one a run; one for all where more than `SHOWN` are so for
        the same reason, as where data are missing."""
        missing = [record for record in self.records if record.status not in MEASURED]
        groups: dict[tuple[Status, str], list[Record]] = {}
        for record in missing:
            reason = f": {record.reason}" if record.status in ("failed", "damaged") else ""
            groups.setdefault((record.status, reason), []).append(record)
        lines = [
            f"{status}: {name}{reason}"
            for (status, reason), ones in groups.items()
            for name in (
                [", ".join(filter(None, (one.run.id, one.progress * (not reason)))) for one in ones]
                if len(ones) <= SHOWN
                else [f"{len(ones)} runs, such as {ones[0].run.id}"]
            )
        ]
        return [f"{len(missing)} of {len(self.records)} runs are not in the table:", *lines] if missing else []

    @cached_property
    def stopped(self) -> list[str]:
        """Likewise of runs that were stopped."""
        lines = [f"stopped: {record.run.id} {record.progress}" for record in self.records if record.status == "stopped"]
        return [f"{len(lines)} of {len(self.records)} runs were stopped before their end:", *lines] if lines else []

    @property
    def damage(self) -> list[str]:
        return [f"Warning: {line}" for record in self.records for line in record.damage]


def content_of(records: Sequence[Record], reference: str | None = None) -> Content:
    """
    Args:
        reference: words of the line that the others are compared with, seed by seed; None chooses one.

    Raises:
        UserError: the words are those of no line, or of several.
    """
    cells = cells_of(records)
    tables = [here for kind in kinds(cells) for here in alike(kind)]
    return Content(records, cells, tables, _differences(tables, reference))


def _differences(tables: Sequence[Sequence[Cell]], reference: str | None) -> list[Compared]:
    """Of the tables that have the reference. Further evaluations may be of some runs only."""
    found, refused = [], []
    for here in tables:
        try:
            found.append(compared(here, reference))
        except UserError as error:
            refused.append(error)
    if refused and not found:
        raise refused[0]
    return [one for one in found if one is not None]


def subheading(cells: Sequence[Cell]) -> list[str]:
    """Under which protocol encoders were evaluated, where this is not the same for all, or not the standard one."""
    return [f"evaluation: {cells[0].protocol}"] if "protocol" in cells[0].shown else []
