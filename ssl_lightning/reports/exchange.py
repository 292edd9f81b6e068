"""The tables of a report for other programs: CSV, and LaTeX with booktabs."""

import csv
import io
from collections.abc import Iterable, Sequence

from ssl_lightning.reports.comparison import MISSING, Quantity, Row
from ssl_lightning.reports.rows import no_formula

_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MISSING: "--",
}


def in_csv(rows: Sequence[Row]) -> str:
    """Numbers in full, and beside each column of means one of their deviations (`... s.d.`); what is missing is empty.
    A text that a spreadsheet would take for a formula has an apostrophe before it."""
    means = {key for row in rows for key, value in row.items() if _deviation(value) is not None}
    made: list[dict[str, str | float | None]] = []
    for row in rows:
        made.append({})
        for key, value in row.items():
            made[-1][key] = _of_text(value) if isinstance(value, str) else value.value
            if key in means:
                made[-1][f"{key} s.d."] = _deviation(value)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(made[0]) if made else [])
    writer.writeheader()
    writer.writerows(made)
    return text.getvalue()


def in_latex(rows: Sequence[Row], caption: str) -> str:
    """A floating table, in which what is bold in Markdown is; its preamble needs `\\usepackage{booktabs}`."""
    columns = "".join("l" if isinstance(value, str) else "r" for value in rows[0].values())
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(caption)}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        _line(map(latex, rows[0])),
        r"    \midrule",
        *(_line(map(_cell, row.values())) for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """A text that stays what it is."""
    return "".join(_LATEX.get(mark, mark) for mark in " ".join(text.split()))


def _line(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(value: str | Quantity) -> str:
    if isinstance(value, str):
        return latex(value)
    return rf"\textbf{{{latex(value.text)}}}" if value.strong else latex(value.text)


def _of_text(text: str) -> str:
    return "" if text == MISSING else no_formula(text)


def _deviation(value: str | Quantity) -> float | None:
    return None if isinstance(value, str) else value.deviation
