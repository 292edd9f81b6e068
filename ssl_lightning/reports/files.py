"""The files of a report: written one by one, each whole or not at all."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import reason
from ssl_lightning.files import write_text
from ssl_lightning.reports.comparison import columns_of, comparison, kinds, table_of_runs
from ssl_lightning.reports.content import Content, subheading
from ssl_lightning.reports.exchange import in_csv, in_latex
from ssl_lightning.reports.figures import Plot
from ssl_lightning.reports.html import Live, page
from ssl_lightning.reports.markdown import markdown
from ssl_lightning.reports.plots import word
from ssl_lightning.reports.transfer import transfer


def write(content: Content, output: Path, figures: Sequence[Plot], live: Live | None = None) -> None:
    """Writes report.md, report.html, and the tables as CSV and LaTeX.

    Args:
        figures: which lie in `output`.
        live: of a page that looks for a newer one by itself.
    """
    write_text(output / "report.md", markdown(content, figures))
    write_text(output / "report.html", page(content, figures, live))
    for here in kinds(content.cells) or [[]]:
        suite = f"_{word(here[0].suite)}" if columns_of(here) else ""
        protocols = bool(here) and "protocol" in here[0].shown
        write_text(output / f"cells{suite}.csv", in_csv(comparison(here, protocols)))
    write_text(output / "runs.csv", in_csv(table_of_runs(content.records, content.cells)))
    write_text(output / "report.tex", _latex(content))


def _latex(content: Content) -> str:
    tables = [in_latex(comparison(here), ", ".join([content.heading, *subheading(here)])) for here in content.tables]
    for found in content.differences:
        title = f"Differences from {found.reference.name}"
        tables.append(in_latex(found.rows, ", ".join([title, *subheading(found.cells)])))
    if moved := transfer(content.cells):
        tables.append(in_latex(moved, "Transfer: linear and k-NN % on other data."))
    return "\n".join([r"% \usepackage{booktabs}", *tables])


@contextlib.contextmanager
def writing_to(output: Path) -> Iterator[None]:
    """
    Raises:
        UserError: says, of a folder that cannot be written to, what to do.
    """
    try:
        yield
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        why = reason(error.__cause__, "Name another folder: --output FOLDER")
        raise UserError(f"The report cannot be written to {output}: {why}") from error
