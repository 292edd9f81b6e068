"""ssl-report: compare runs. A table in the terminal, in Markdown and in a page for a browser, and plots."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lightning.errors import UserError

if TYPE_CHECKING:
    from ssl_lightning.reports.content import Content


def report(folders: Sequence[Path], output: Path | None = None, reference: str | None = None) -> None:
    """Prints the comparison, and writes report.md, report.html, PNG files, and the tables as CSV and LaTeX.

    Args:
        reference: words of the line that the others are compared with, seed by seed; None chooses one.
    """
    from ssl_lightning.reports.content import content_of
    from ssl_lightning.reports.files import write, writing_to
    from ssl_lightning.reports.plots import plots_of
    from ssl_lightning.reports.records import records_of
    from ssl_lightning.runs.run import find_runs

    refuse_what_is_no_folder(folders)
    records = records_of(find_runs(list(folders)))
    if not records:
        raise UserError(f"There are no runs in {', '.join(map(str, folders))}: no folder in it has a config.yaml.")
    content = content_of(records, reference)
    output = output or report_folder(folders[0])
    with writing_to(output), tempfile.TemporaryDirectory() as narrow:
        figures = plots_of(content.tables, content.differences, output, Path(narrow))
        write(content, output, figures)
    _show(content, output, len(figures))


def _show(content: "Content", output: Path, figures: int) -> None:
    """In the terminal."""
    from rich.console import Console

    from ssl_lightning.reports.comparison import explanation_of_times
    from ssl_lightning.reports.content import subheading
    from ssl_lightning.reports.differences import INTERVALS, too_few, uncertainty
    from ssl_lightning.reports.tables import differences_in_terminal, in_terminal, times_in_terminal

    console = Console(markup=False)
    for i, here in enumerate(content.tables):
        console.print(in_terminal(here, "\n".join([content.heading, *subheading(here)])), "")
        if i in content.explanations:
            console.print(content.explanations[i], "", style="dim")
    for found in content.differences:
        title = "\n".join([f"differences from {found.reference.name}", *subheading(found.cells)])
        console.print(differences_in_terminal(found, title), "")
        if words := uncertainty(found.reference):
            console.print(words, style="dim")
    if content.differences:
        console.print(INTERVALS, "", style="dim")
        if warning := too_few(content.cells):
            console.print(warning, "")
    for here in content.standard:
        console.print(times_in_terminal(here, "\n".join(["seconds of one run", *subheading(here)])), "")
    if content.standard:
        console.print(explanation_of_times(content.cells), style="dim")
    for title, *lines in filter(None, (content.unfinished, content.stopped)):
        console.print(f"\n{title}", style="bold")
        console.print("\n".join(lines), highlight=False, soft_wrap=True)
    for line in content.damage:
        console.print(line, highlight=False, soft_wrap=True)
    where = f"Report: {output / 'report.html'}\n        {output / 'report.md'}, with {figures} figures beside it"
    console.print(where, highlight=False, soft_wrap=True)


def refuse_what_is_no_folder(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")


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
