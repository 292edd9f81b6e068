"""The tables of a report in other programs say what report.md says."""

import csv
import io
import re

import pytest

from ssl_lightning.reports.comparison import Quantity
from ssl_lightning.reports.exchange import in_csv, in_latex, latex
from tests.reports.test_report import Command, Folder, forget, markdown, report, rows, sweep

__all__ = ["forget", "sweep"]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def written(sweep: Folder, name: str) -> str:
    return (sweep.folder / "report" / name).read_text(encoding="utf-8")


def filled(sweep: Folder) -> None:
    for seed, top1 in ((1, 0.5), (2, 0.6)):
        sweep.finish(top1, "method.temperature=0.1", seed=seed, untrained=0.1 * seed)
    sweep.finish(0.7, "method.temperature=0.5", seed=1)
    sweep.fail(ValueError("=1+1"), seed=3)


def test_csv_has_numbers_in_full_and_their_deviations(command: Command, sweep: Folder):
    filled(sweep)
    report(command)
    cells = read(written(sweep, "cells.csv"))
    assert [row["method"] for row in cells] == ["untrained", "simclr", "simclr"]
    assert [float(row["linear %"]) for row in cells] == pytest.approx([15.0, 55.0, 70.0])
    assert float(cells[1]["linear % s.d."]) == pytest.approx(100 * 0.005**0.5)
    assert cells[2]["linear % s.d."] == cells[0]["fraction"] == cells[0]["5-shot %"] == ""
    assert cells[1]["variant"] == "temperature=0.1"
    assert [key for key in cells[0] if not key.endswith(" s.d.")] == list(rows(markdown(sweep))[0])
    runs = {row["seed"] + row["variant"]: row for row in read(written(sweep, "runs.csv"))}
    assert runs["2temperature=0.1"]["linear %"] == "60.0"
    assert runs["3"]["status"] == "failed"
    assert runs["3"]["linear %"] == ""


def test_no_text_is_a_formula():
    made = read(in_csv([{"a": "=1+1", "b": "@x", "c": Quantity("-1.0", -1.0)}]))
    assert made == [{"a": "'=1+1", "b": "'@x", "c": "-1.0"}]
    assert in_csv([]) == "\r\n"


def test_latex_has_the_rows_of_markdown(command: Command, sweep: Folder):
    filled(sweep)
    report(command)
    text = written(sweep, "report.tex")
    assert text.startswith("% \\usepackage{booktabs}\n")
    table, differences = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.S)
    assert r"\caption{Differences from simclr random temperature=0.1, fraction 1}" in differences
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", table)
    head, *body = [line.strip().removesuffix(r" \\").split(" & ") for line in table.splitlines() if " & " in line]
    assert {len(line) for line in (head, *body)} == {len(columns)}
    shown = rows(markdown(sweep))
    assert head == [latex(name) for name in shown[0]]
    assert body == [[latex(text) for text in row.values()] for row in shown]
    assert [line.strip() for line in table.splitlines() if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"55.0 $\pm$ 7.1" in table
    assert r"\caption{dataset digits, subset random, equal epochs, 1--2 seeds}" in table


def test_latex_of_any_text_is_that_text():
    assert latex(r"a_b & 5 % of $x^2 {~} \input #1") == (
        r"a\_b \& 5 \% of \$x\textasciicircum{}2 \{\textasciitilde{}\} \textbackslash{}input \#1"
    )
    table = in_latex([{"method": r"\write18{rm}", "n": Quantity("–", None)}], "two\nlines")
    assert r"\textbackslash{}write18\{rm\} & -- \\" in table
    assert r"\caption{two lines}" in table


def test_latex_is_bold_where_markdown_is(command: Command, sweep: Folder):
    for seed in range(3):
        sweep.finish(0.5 + seed / 1000, seed=seed)
        sweep.finish(0.7 + seed / 1000, "method=byol", seed=seed)
        sweep.finish(0.7 - 0.2 * seed, "method=vicreg", seed=seed)
    report(command)
    bold = re.findall(r"\*\*([^*]+)\*\*", markdown(sweep).partition("## Which metric")[0])
    assert len(bold) > 2
    assert re.findall(r"\\textbf\{([^}]+)\}", written(sweep, "report.tex")) == bold


def test_without_results_there_are_runs_alone(command: Command, sweep: Folder):
    sweep.begin(seed=1)
    report(command)
    assert written(sweep, "cells.csv").strip() == ""
    assert len(read(written(sweep, "runs.csv"))) == 1
    assert "table" not in written(sweep, "report.tex")
