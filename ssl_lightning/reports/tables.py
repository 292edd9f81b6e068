"""The comparison as a table, in a terminal and in Markdown."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_lightning.reports.cells import Cell
    from ssl_lightning.reports.comparison import Quantity, Row
    from ssl_lightning.reports.differences import Compared


WIDTH = 80
TAKEN = 28  # by what is no metric
MAX_WORD = 17  # of the first column, where the others leave as much


def in_terminal(cells: Sequence["Cell"], title: str) -> "Table":
    """Of the comparison, what fits into 80 columns."""
    from ssl_lightning.reports.comparison import (
        CLASSIFIER,
        METRICS,
        classifies,
        columns_of,
        comparison,
        standard_metrics,
        untrained_encoders,
    )

    rows = comparison(cells)
    labels = [f"untrained {backbone}".strip() for backbone in untrained_encoders(cells)]
    labels += [cell.line for cell in cells]
    further = list(columns_of(cells).values())
    while sum(len(f"{column}  ") for column in further) > WIDTH - TAKEN:  # the page has all
        further.pop()
    columns = ["fraction", *(further or standard_metrics(cells).values()), "seconds"]
    if classifies(cells) and not further:
        columns[columns.index(METRICS["representation/rankme"])] = CLASSIFIER["classifier/top1"]
    return _narrow(title, labels, columns, rows)


def times_in_terminal(cells: Sequence["Cell"], title: str) -> "Table":
    """Where the time went, in 80 columns."""
    from ssl_lightning.reports.comparison import columns_of_times, times

    return _narrow(title, [cell.line for cell in cells], ["fraction", *columns_of_times(cells).values()], times(cells))


def _narrow(title: str, labels: Sequence[str], columns: Sequence[str], rows: Sequence["Row"]) -> "Table":
    """Deviations of accuracies alone, and all that tells a line from others in one column, folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [{column: _short(row[column], column) for column in columns} for row in rows]
    taken = sum(1 + max(len(column), *(len(texts[column]) for texts in shown)) for column in columns)
    widest = max(min(MAX_WORD, WIDTH - taken), len("method"))
    room = max(widest, WIDTH - taken)
    labels = [  # which break at = rather than within a word
        " ".join(word if len(word) <= room else word.replace("=", "= ") for word in label.split()) for label in labels
    ]
    words = [word for label in labels for word in label.split()]
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    table.add_column("method", min_width=min(widest, max(map(len, words))), overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        table.add_row(
            "" if i and label == labels[i - 1] else label,
            *(Text(text, "bold" * _is_strong(row[column])) for column, text in shown[i].items()),
            end_section=i + 1 < len(labels) and labels[i + 1] != label,
        )
    return table


def in_markdown(rows: Sequence["Row"]) -> str:
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for column, value in rows[-1].items():
        table.add_column(plain(column), justify="left" if isinstance(value, str) else "right")
    for row in rows:
        texts = {column: plain(_text(value)) for column, value in row.items()}
        table.add_row(*(f"**{text}**" if _is_strong(row[column]) else text for column, text in texts.items()))
    return _render(table)


def plain(text: str) -> str:
    """In Markdown, a text that stays what it is: no HTML, no column of its own."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("`", "\\`")


def differences_in_terminal(compared: "Compared", title: str) -> "Table":
    """In 80 columns: of the linear probe, and of k-NN."""
    rows = compared.rows
    columns = ["fraction", "seeds", *(column for column in rows[0] if column.endswith("%"))][:4]
    return _narrow(title, [one.cell.line for one in compared.against], columns, rows)


def _short(value: "str | Quantity", column: str) -> str:
    return _text(value) if column.endswith("%") else _text(value).partition(" ±")[0]


def _is_strong(value: "str | Quantity") -> bool:
    return not isinstance(value, str) and value.strong


def _text(value: "str | Quantity") -> str:
    return value if isinstance(value, str) else value.text


def _render(table: "Table") -> str:
    from rich.console import Console

    console = Console(width=10_000, color_system=None, force_terminal=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.strip() for line in capture.get().splitlines()]
    return "\n".join(line for line in lines if line)
