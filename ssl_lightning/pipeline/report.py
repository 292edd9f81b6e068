"""ssl-report: compare runs. A table in the terminal, in Markdown and in a page for a browser, and plots."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import reason

if TYPE_CHECKING:
    from ssl_lightning.reports.cells import Cell
    from ssl_lightning.reports.records import Record

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


def report(folders: Sequence[Path], output: Path | None = None, reference: str | None = None) -> None:
    """Prints the comparison, and writes report.md, report.html, PNG files, and the tables as CSV and LaTeX.

    Args:
        reference: words of the line that the others are compared with, seed by seed; None chooses one.
    """
    from rich.console import Console

    from ssl_lightning.files import write_text
    from ssl_lightning.reports.agreement import EXPLANATION as EXPLANATION_OF_AGREEMENT
    from ssl_lightning.reports.agreement import agreement
    from ssl_lightning.reports.cells import cells_of
    from ssl_lightning.reports.comparison import (
        alike,
        classifies,
        columns_of,
        comparison,
        explanation_of,
        explanation_of_times,
        kinds,
        table_of_runs,
        times,
    )
    from ssl_lightning.reports.differences import EXPLANATION as EXPLANATION_OF_DIFFERENCES
    from ssl_lightning.reports.differences import compared, too_few, uncertainty
    from ssl_lightning.reports.exchange import in_csv, in_latex
    from ssl_lightning.reports.generality import EXPLANATION as EXPLANATION_OF_GENERALITY
    from ssl_lightning.reports.generality import generality
    from ssl_lightning.reports.html import page
    from ssl_lightning.reports.plots import in_markdown as pictures_in_markdown
    from ssl_lightning.reports.plots import plots_of, word
    from ssl_lightning.reports.records import records_of
    from ssl_lightning.reports.tables import differences_in_terminal, in_markdown, in_terminal, plain, times_in_terminal
    from ssl_lightning.reports.transfer import EXPLANATION as EXPLANATION_OF_TRANSFER
    from ssl_lightning.reports.transfer import transfer
    from ssl_lightning.runs.run import MEASURED, find_runs

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")
    records = records_of(find_runs(list(folders)))
    if not records:
        raise UserError(f"There are no runs in {', '.join(map(str, folders))}: no folder in it has a config.yaml.")
    cells = cells_of(records)
    output = output or report_folder(folders[0])
    heading = _heading(cells)
    explanation = EXPLANATION + (EXPLANATION_OF_CLASSIFIER if classifies(cells) else "")
    tables = [here for kind in kinds(cells) for here in alike(kind)]
    standard = [here for here in tables if not columns_of(here)]
    about = {id(here): explanation_of(here) for here in tables if columns_of(here)}
    if standard:
        about[id(standard[-1])] = explanation  # once, below all of them
    differences = [found for here in tables if (found := compared(here, reference)) is not None]
    agreed = [(here, rows) for here in standard if (rows := agreement(here))]
    missing = [record for record in records if record.status not in MEASURED]
    unfinished = _unfinished(missing)
    stopped = [f"stopped: {record.run.id} {record.progress}" for record in records if record.status == "stopped"]
    if stopped:
        stopped.insert(0, f"{len(stopped)} of {len(records)} runs were stopped before their end:")
    damage = [f"Warning: {line}" for record in records for line in record.damage]
    others = f"{len(missing)} of {len(records)} runs are not in the table:"

    with _writing_to(output), tempfile.TemporaryDirectory() as narrow:
        figures = plots_of(tables, output, Path(narrow))
        markdown = [f"# {plain(heading)}", ""]
        for here in tables:
            markdown += [*_subheading(here, "## "), in_markdown(comparison(here)), ""]
            markdown += [plain(about[id(here)]), ""] if id(here) in about else []
        for found in differences:
            markdown += [f"## Differences from {plain(found.reference.name)}", "", *_subheading(found.cells, "### ")]
            markdown += [in_markdown([row for _, row in found.rows]), "", uncertainty(found.reference), ""]
        markdown += [EXPLANATION_OF_DIFFERENCES, "", too_few(cells), ""] if differences else []
        if moved := transfer(cells):
            markdown += ["## Transfer", "", in_markdown(moved), "", EXPLANATION_OF_TRANSFER, ""]
        if joined := generality(cells):
            markdown += ["## Universality and transfer", "", in_markdown(joined), "", EXPLANATION_OF_GENERALITY, ""]
        if agreed:
            markdown += ["## Which metric to trust", ""]
            for here, rows in agreed:
                markdown += [*_subheading(here, "### "), in_markdown(rows), ""]
            markdown += [EXPLANATION_OF_AGREEMENT, ""]
        if standard:
            markdown += ["## Seconds", ""]
            for here in standard:
                markdown += [*_subheading(here, "### "), in_markdown(times(here)), ""]
            markdown += [explanation_of_times(cells), ""]
        if unfinished:
            markdown += [others, "", *(f"- {plain(line)}" for line in unfinished), ""]
        if stopped:
            markdown += [stopped[0], "", *(f"- {plain(line)}" for line in stopped[1:]), ""]
        markdown += pictures_in_markdown(figures)
        write_text(output / "report.md", "\n".join(markdown))
        headings = [heading, *(_subheading(cells) if len({cell.protocol for cell in cells}) == 1 else [])]
        write_text(
            output / "report.html", page(", ".join(headings), explanation, cells, records, figures, differences, agreed)
        )
        for here in kinds(cells) or [[]]:
            suite = f"_{word(here[0].suite)}" if columns_of(here) else ""
            protocols = bool(here) and "protocol" in here[0].shown
            write_text(output / f"cells{suite}.csv", in_csv(comparison(here, protocols)))
        write_text(output / "runs.csv", in_csv(table_of_runs(records, cells)))
        captions = [", ".join([heading, *_subheading(here)]) for here in tables]
        latex = [in_latex(comparison(here), caption) for here, caption in zip(tables, captions, strict=True)]
        latex += [in_latex(moved, "Transfer: linear and k-NN % on other data.")] if moved else []
        write_text(output / "report.tex", "\n".join([r"% \usepackage{booktabs}", *latex]))

    console = Console(markup=False)
    for here in tables:
        console.print(in_terminal(here, "\n".join([heading, *_subheading(here)])), "")
        if id(here) in about:
            console.print(about[id(here)], "", style="dim")
    for found in differences:
        title = "\n".join([f"differences from {found.reference.name}", *_subheading(found.cells)])
        console.print(differences_in_terminal(found, title), "")
        if words := uncertainty(found.reference):
            console.print(words, style="dim")
    if differences:
        console.print(EXPLANATION_OF_DIFFERENCES, "", style="dim")
    if differences and (warning := too_few(cells)):
        console.print(warning, "")
    for here in standard:
        console.print(times_in_terminal(here, "\n".join(["seconds of one run", *_subheading(here)])), "")
    if standard:
        console.print(explanation_of_times(cells), style="dim")
    if unfinished:
        console.print(f"\n{others}", style="bold")
        console.print("\n".join(unfinished), highlight=False, soft_wrap=True)
    if stopped:
        console.print(f"\n{stopped[0]}", style="bold")
        console.print("\n".join(stopped[1:]), highlight=False, soft_wrap=True)
    for line in damage:
        console.print(line, highlight=False, soft_wrap=True)
    where = f"Report: {output / 'report.html'}\n        {output / 'report.md'}, with {len(figures)} figures beside it"
    console.print(where, highlight=False, soft_wrap=True)


def report_folder(folder: Path) -> Path:
    """Of a folder of runs, where its report goes unless something else is said.

    Raises:
        UserError: it is a link, as one in somebody else's folder may be that leads elsewhere.
    """
    output = folder / "report"
    if output.is_symlink():
        raise UserError(
            f"{output} is a link: nothing is written through it unasked. Put a folder in its place, or name the "
            "one to write to: --output FOLDER"
        )
    return output


@contextlib.contextmanager
def _writing_to(output: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        why = reason(error.__cause__, "Name another folder: --output FOLDER")
        raise UserError(f"The report cannot be written to {output}: {why}") from error


def _heading(cells: Sequence["Cell"]) -> str:
    if not cells:
        return "No finished runs"
    first = cells[0]
    same = [f"{key} {first.identity[key]}" for key in ("dataset", "subset") if key not in first.shown]
    same += [f"equal {first.identity['budget']}"] if "budget" not in first.shown else []
    numbers = sorted({len(cell.results) for cell in cells})
    same.append(f"{'–'.join(map(str, numbers))} seed{'s' if numbers != [1] else ''}")
    return ", ".join(same)


def _subheading(cells: Sequence["Cell"], mark: str = "") -> list[str]:
    """Under which protocol encoders were evaluated, where this is not the same for all, or not the standard one."""
    from ssl_lightning.reports.tables import plain

    if "protocol" not in cells[0].shown:
        return []
    return [f"{mark}evaluation: {plain(cells[0].protocol) if mark else cells[0].protocol}"]


def _unfinished(records: Sequence["Record"]) -> list[str]:
    """A line a run; one for all where more than `SHOWN` are so for the same reason, as where data are missing."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in records:
        reason = f": {record.reason}" if record.status in ("failed", "damaged") else ""
        groups.setdefault((record.status, reason), []).append(record.run.id)
    return [
        f"{status}: {name}{reason}"
        for (status, reason), ids in groups.items()
        for name in (ids if len(ids) <= SHOWN else [f"{len(ids)} runs, such as {ids[0]}"])
    ]
