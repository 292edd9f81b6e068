"""report.md: all that a report says, as text."""

from collections.abc import Sequence

from ssl_lightning.reports.agreement import EXPLANATION as EXPLANATION_OF_AGREEMENT
from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import comparison, explanation_of_times, times
from ssl_lightning.reports.content import Content, subheading
from ssl_lightning.reports.differences import EXPLANATION as EXPLANATION_OF_DIFFERENCES
from ssl_lightning.reports.differences import too_few, uncertainty
from ssl_lightning.reports.figures import Plot
from ssl_lightning.reports.generality import EXPLANATION as EXPLANATION_OF_GENERALITY
from ssl_lightning.reports.generality import generality
from ssl_lightning.reports.plots import in_markdown as pictures_in_markdown
from ssl_lightning.reports.tables import in_markdown, plain
from ssl_lightning.reports.transfer import EXPLANATION as EXPLANATION_OF_TRANSFER
from ssl_lightning.reports.transfer import transfer


def markdown(content: Content, figures: Sequence[Plot]) -> str:
    """The whole file. Figures lie beside it."""
    lines = [f"# {plain(content.heading)}", ""]
    for i, here in enumerate(content.tables):
        lines += [*_subheading(here, "## "), in_markdown(comparison(here)), ""]
        lines += [plain(content.explanations[i]), ""] if i in content.explanations else []
    for found in content.differences:
        lines += [f"## Differences from {plain(found.reference.name)}", "", *_subheading(found.cells, "### ")]
        lines += [in_markdown(found.rows), "", uncertainty(found.reference), ""]
    lines += [EXPLANATION_OF_DIFFERENCES, "", too_few(content.cells), ""] if content.differences else []
    if moved := transfer(content.cells):
        lines += ["## Transfer", "", in_markdown(moved), "", EXPLANATION_OF_TRANSFER, ""]
    if joined := generality(content.cells):
        lines += ["## Universality and transfer", "", in_markdown(joined), "", EXPLANATION_OF_GENERALITY, ""]
    if content.agreed:
        lines += ["## Which metric to trust", ""]
        for here, rows in content.agreed:
            lines += [*_subheading(here, "### "), in_markdown(rows), ""]
        lines += [EXPLANATION_OF_AGREEMENT, ""]
    if content.standard:
        lines += ["## Seconds", ""]
        for here in content.standard:
            lines += [*_subheading(here, "### "), in_markdown(times(here)), ""]
        lines += [explanation_of_times(content.cells), ""]
    for title, *ones in filter(None, (content.unfinished, content.stopped)):
        lines += [title, "", *(f"- {plain(line)}" for line in ones), ""]
    return "\n".join([*lines, *pictures_in_markdown(figures)])


def _subheading(cells: Sequence[Cell], mark: str) -> list[str]:
    return [f"{mark}{plain(words)}" for words in subheading(cells)]
