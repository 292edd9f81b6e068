"""What is separated from a reference, and by how much: a table beside the comparison."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssl_lightning.errors import UserError
from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import (
    LINEAR,
    MISSING,
    Quantity,
    Row,
    form_of,
    metrics_of,
    scale_of,
    shown_of,
    what_of,
)
from ssl_lightning.reports.paired import FEW, Difference, difference, standard_error

PLAIN = ("random", "full")
"""Subsets that nothing was chosen for."""
INTERVALS = (
    "Differences from the reference with the same seeds: mean [95 % t-interval] over seeds. Bold: the interval leaves "
    "out 0, of at least three seeds; one in twenty does by chance."
)
"""Of the differences, which the terminal shows without p."""
EXPLANATION = f"{INTERVALS} p: Wilcoxon's signed-rank test of the first column, from five seeds on."


class Reference(NamedTuple):
    """What the cells of one table are compared with: of several lines, each with the one that has most of its words
    and fewest others; at the same fraction, where that was run, or at the only one.

    Args:
        lines: cells by fraction, by the name of the line.
    """

    name: str
    lines: Mapping[str, Mapping[float, Cell]]

    def of(self, cell: Cell) -> Cell | None:
        """None where there is nothing to compare it with: it is of a reference itself, or no line is the nearest."""
        by_fraction = self._nearest(_name(cell))
        alone = next(iter(by_fraction.values())) if len(by_fraction) == 1 else None
        found = by_fraction.get(cell.fraction, alone)
        return None if found is cell else found

    def _nearest(self, name: str) -> Mapping[float, Cell]:
        if len(self.lines) == 1:
            return next(iter(self.lines.values()))
        if name in self.lines:
            return {}
        near = {line: _nearness(_words(line), _words(name)) for line in self.lines}
        near = {line: how for line, how in near.items() if how[0]}
        nearest = [line for line, how in near.items() if how == max(near.values())]
        return self.lines[nearest[0]] if len(nearest) == 1 else {}


class Against(NamedTuple):
    """A cell against what it is compared with.

    Args:
        found: differences by the column of the tables, shares in %.
        row: the same in words.
    """

    cell: Cell
    found: Mapping[str, Difference | None]
    row: Row


class Compared(NamedTuple):
    """Cells of one dataset and protocol, what they are compared with, and those that there is something to compare
    with."""

    cells: Sequence[Cell]
    reference: Reference
    against: Sequence[Against]

    @property
    def rows(self) -> list[Row]:
        return [one.row for one in self.against]


def compared(cells: Sequence[Cell], words: str | None = None) -> Compared | None:
    """None where nothing can be compared. Words, and what is raised, as of `reference_of`."""
    reference = reference_of(cells, words)
    against = differences(cells, reference) if reference else []
    return Compared(cells, reference, against) if reference and against else None


def reference_of(cells: Sequence[Cell], words: str | None = None) -> Reference | None:
    """Of the cells of one dataset and protocol: the lines that have all the words, or else SimCLR on a random subset,
    or the first; of several, one with the most seeds. Of a single line, its largest fraction. None where there is one
    cell.

    Raises:
        UserError: the words are those of no line, or of lines that no other can be compared with.
    """
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(_name(cell), []).append(cell)
    if words is not None:
        names = [name for name in lines if set(words.lower().split()) <= _words(name)]
        if not names:
            raise UserError(
                f"--reference '{words}' names no line of the comparison. Give words of one: {'; '.join(sorted(lines))}."
            )
    else:
        names = [
            min(lines, key=lambda name: (_rank(lines[name][0]), -max(len(cell.records) for cell in lines[name]), name))
        ]
    if len(cells) < 2:
        return None
    chosen = {name: lines[name] if len(lines) > 1 else [max(cells, key=lambda cell: cell.fraction)] for name in names}
    found = Reference(_called(chosen, words), {name: {one.fraction: one for one in of} for name, of in chosen.items()})
    if len(names) > 1 and not any(found.of(cell) for cell in cells):
        raise UserError(
            f"--reference '{words}' names {len(names)} lines of the comparison, and no other is nearest to one of "
            f"them. Give words of one: {'; '.join(sorted(names))}."
        )
    return found


def _called(chosen: Mapping[str, Sequence[Cell]], words: str | None) -> str:
    """One line by its name, and its fraction where it has one; several by the words, and what they differ in."""
    name, cells = next(iter(chosen.items()))
    if len(chosen) == 1:
        return name + (f", fraction {cells[0].fraction:g}" if len(cells) == 1 else "")
    parts = [_parts(of[0]) for of in chosen.values()]
    differ = [key for key in parts[0] if len({part[key] for part in parts}) > 1]
    return f"{words}, of the same {' and '.join(differ)}"


def _name(cell: Cell) -> str:
    """Of the line that the cell belongs to."""
    return " ".join(_parts(cell).values()).strip()


def _parts(cell: Cell) -> dict[str, str]:
    parts = {key: str(cell.identity[key]) for key in ("method", "subset")}
    parts |= {"budget": f"equal {cell.identity['budget']}"} if "budget" in cell.shown else {}
    return parts | {"settings": cell.variant}


def _words(name: str) -> set[str]:
    """In lower case; of a setting, its value as well."""
    words = name.lower().replace(",", " ").split()
    return {*words, *(word.partition("=")[2] for word in words)} - {""}


def _nearness(line: set[str], name: set[str]) -> tuple[int, int]:
    return len(line & name), -len(line - name)


def _rank(cell: Cell) -> tuple[bool, bool]:
    return cell.identity["method"] != "simclr", cell.identity["subset"] not in PLAIN


def differences(cells: Sequence[Cell], reference: Reference) -> list[Against]:
    """Of the cells that there is something to compare with."""
    metrics, shown, variants = metrics_of(cells), shown_of(cells), any(cell.variant for cell in cells)
    against: list[Against] = []
    for cell in cells:
        other = reference.of(cell)
        found = {column: _difference(cell, other, name, column) for name, column in metrics.items()} if other else {}
        seeds = max((one.seeds for one in found.values() if one is not None), default=0)
        if seeds:
            row = (
                what_of(cell, shown, {}, variants)
                | {"seeds": Quantity(str(seeds), seeds)}
                | {column: _shown(one, column) for column, one in found.items()}
                | {"p": _p(next(iter(found.values())))}
            )
            against.append(Against(cell, found, row))
    return against


def uncertainty(reference: Reference) -> str:
    """Of one measurement of the reference, whose test images are a sample too, in words; empty where nobody knows
    their number."""
    words = []
    for name, by_fraction in reference.lines.items():
        of = f" of {name}" if len(reference.lines) > 1 else ""
        for fraction, cell in sorted(by_fraction.items()):
            images = cell.results[0].get("test_images")
            top1 = next(filter(None, map(cell.values, LINEAR)), [])
            if images and top1:
                error = 100 * standard_error(statistics.fmean(top1), images)
                words.append(f"±{error:.2f}{of} at fraction {fraction:g} ({images:,} test images)")
    return f"Binomial standard error of its linear %: {', '.join(words)}." if words else ""


def _difference(cell: Cell, other: Cell, name: str, column: str) -> Difference | None:
    """Shares in %."""
    scale = scale_of(column)
    found = difference(_by_seed(cell, name), _by_seed(other, name))
    return found and found._replace(mean=scale * found.mean, low=scale * found.low, high=scale * found.high)


def _by_seed(cell: Cell, name: str) -> dict[int, float]:
    """Means over the runs of a seed, of which there are several where proxies have seeds of their own."""
    values: dict[int, list[float]] = {}
    for results in cell.results:
        if math.isfinite(results["metrics"].get(name, math.nan)):
            values.setdefault(results["identity"]["seed"], []).append(results["metrics"][name])
    return {seed: statistics.fmean(several) for seed, several in values.items()}


def _shown(found: Difference | None, column: str) -> Quantity:
    if found is None:
        return Quantity(MISSING, None)
    form = f"+{form_of(column)}"
    interval = f" [{found.low:{form}}, {found.high:{form}}]" if found.seeds > 1 else ""
    return Quantity(f"{found.mean:{form}}{interval}", found.mean, strong=found.separated)


def _p(found: Difference | None) -> Quantity:
    return Quantity(MISSING, None) if found is None or found.p is None else Quantity(f"{found.p:.3f}", found.p)


def too_few(cells: Sequence[Cell]) -> str:
    """A warning, where there are fewer seeds than anything can be said by."""
    least = min((len(cell.results) for cell in cells), default=FEW)
    if least >= FEW:
        return ""
    return f"Warning: {'one seed' if least == 1 else f'{least} seeds'} in some cells: nothing is shown by so few."
