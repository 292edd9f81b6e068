"""ssl-report: compare runs. A table in the terminal and in Markdown, and plots."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lightning.command import run_command
from ssl_lightning.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from ssl_lightning.reports.cells import Cell
    from ssl_lightning.runs import Run

METRICS = {
    "linear/top1": "linear %",
    "knn/top1": "k-NN %",
    "linear_5shot/top1": "5-shot %",
    "representation/rankme": "RankMe r",
}
CLASSIFIER = {"classifier/top1": "classifier %"}  # shown where a method has it
MAX_WORD = 17  # of the first column: what 80 columns leave
EXPLANATION = (
    "Final-epoch weights, full test split, mean ± s.d. over seeds (n − 1). linear: logistic regression on frozen "
    "representations; k-NN: cosine, weighted; 5-shot: logistic regression on 5 labels a class; RankMe r: effective "
    "number of dimensions of the representations; seconds: training of one run."
)
EXPLANATION_OF_CLASSIFIER = (
    " classifier: the method's own, which knows only the labels of its subset; linear knows those of all training "
    "images."
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="ssl-report", description="Compare the runs in some folders.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs or of sweeps")
    parser.add_argument("--output", type=Path, help="where to write the report (default: <first DIR>/report)")
    arguments = parser.parse_args()
    run_command(lambda: report(arguments.folders, arguments.output))


def report(folders: Sequence[Path], output: Path | None = None) -> None:
    """Prints the comparison, and writes report.md and PNG files."""
    from rich.console import Console

    from ssl_lightning.files import write_text
    from ssl_lightning.reports.cells import cells_of
    from ssl_lightning.runs import find_runs

    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder. Give folders of runs, such as runs/<sweep>.")
    runs = find_runs(list(folders))
    if not runs:
        raise UserError(f"There are no runs in {', '.join(map(str, folders))}: no folder in it has a config.yaml.")
    by_status: dict[str, list[Run]] = {}
    for run in runs:
        by_status.setdefault(run.status, []).append(run)
    finished = {run.id: run for run in by_status.pop("finished", [])}  # one that two sweeps have made counts once
    cells = cells_of(finished.values())
    output = output or folders[0] / "report"
    heading = _heading(cells)
    figures = _figures(cells, output) if cells else []
    others = [_unfinished(run, status) for status, members in by_status.items() for run in members]

    markdown = [f"# {heading}", ""]
    console = Console()
    for dataset in dict.fromkeys(cell.identity["dataset"] for cell in cells):
        here = [cell for cell in cells if cell.identity["dataset"] == dataset]
        console.print(_table(here, heading, markdown=False), "")
        markdown += [_render(_table(here, "", markdown=True)), ""]
    explanation = EXPLANATION + (EXPLANATION_OF_CLASSIFIER if _classifies(cells) else "")
    console.print(explanation, style="dim")
    markdown += [explanation, ""]
    if others:
        console.print(f"\n{len(others)} of {len(runs)} runs are not in the table:", style="bold")
        console.print("\n".join(others), markup=False, highlight=False)
        markdown += [
            f"{len(others)} of {len(runs)} runs are not in the table:",
            "",
            *(f"- {line}" for line in others),
            "",
        ]
    markdown += [f"![{file.stem}]({file.name})\n" for file in figures]
    write_text(output / "report.md", "\n".join(markdown))
    console.print(f"Report: {output / 'report.md'}, with {len(figures)} figures beside it", highlight=False)


def _heading(cells: Sequence["Cell"]) -> str:
    if not cells:
        return "No finished runs"
    first = cells[0]
    same = [f"{key} {first.identity[key]}" for key in ("dataset", "subset") if key not in first.shown]
    same += [f"equal {first.identity['budget']}"] if "budget" not in first.shown else []
    numbers = sorted({len(cell.results) for cell in cells})
    same.append(f"{'–'.join(map(str, numbers))} seed{'s' if numbers != [1] else ''}")
    return ", ".join(same)


def _classifies(cells: Sequence["Cell"]) -> bool:
    return any(cell.values(name) for cell in cells for name in CLASSIFIER)


def _untrained(cells: Sequence["Cell"]) -> dict[str, list[float]]:
    """Metrics of the untrained encoders, one value a seed: methods of one seed start from the same encoder."""
    by_seed = {r["identity"]["seed"]: r["untrained"] for cell in cells for r in cell.results if "untrained" in r}
    return {name: [m[name] for m in by_seed.values() if name in m] for name in METRICS}


def _table(cells: Sequence["Cell"], title: str, markdown: bool) -> "Table":
    """All numbers for Markdown; for a terminal of 80 columns what fits there: deviations of accuracies alone, and
    all that tells a line from others in one column, folded."""
    import statistics

    from rich import box
    from rich.table import Table

    def cell_text(mean: float, deviation: float, name: str) -> str:
        if mean != mean:
            return "–"
        scale = 100 if name.endswith("top1") else 1
        deviates = deviation == deviation and (markdown or scale == 100)
        return f"{scale * mean:.1f}" + (f" ± {scale * deviation:.1f}" if deviates else "")

    metrics = METRICS | (CLASSIFIER if _classifies(cells) else {})
    if _classifies(cells) and not markdown:
        del metrics["representation/rankme"]
    variants = markdown and any(cell.variant for cell in cells)
    shown = [key for key in ("dataset", "subset", "budget") if markdown and key in cells[0].shown]
    if markdown:
        table = Table(box=box.MARKDOWN)
    else:
        table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    words = [word for cell in cells for word in ("untrained", *cell.line.split())]
    table.add_column("method", min_width=min(MAX_WORD, max(map(len, words))), overflow="fold")
    for column in (*shown, *(["variant"] if variants else [])):
        table.add_column(column)
    for column in ("fraction", *(["images", "seeds"] if markdown else []), *metrics.values(), "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    untrained = _untrained(cells)
    if any(untrained.values()):
        values = [
            cell_text(statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else float("nan"), n) if v else "–"
            for n, v in ((name, untrained.get(name, [])) for name in metrics)
        ]
        blank = [""] * (len(shown) + variants)
        counts = ["–", str(max(map(len, untrained.values())))] if markdown else []
        table.add_row("untrained", *blank, "–", *counts, *values, "–", end_section=not markdown)
    former = None
    for i, cell in enumerate(cells):
        table.add_row(
            cell.identity["method"] if markdown else cell.line if cell.line != former else "",
            *(str(cell.identity[key]) for key in shown),
            *([cell.variant or "–"] if variants else []),
            f"{cell.fraction:g}",
            *([str(cell.results[0]["mask"]["size"]), str(len(cell.results))] if markdown else []),
            *(cell_text(*cell.statistics(name), name) for name in metrics),
            cell_text(*cell.statistics("train_seconds", cost=True), "seconds"),
            end_section=not markdown and i + 1 < len(cells) and cells[i + 1].line != cell.line,
        )
        former = cell.line
    return table


def _render(table: "Table") -> str:
    from rich.console import Console

    console = Console(width=10_000, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    lines = [line.strip() for line in capture.get().splitlines()]
    return "\n".join(line for line in lines if line)


def _figures(cells: Sequence["Cell"], output: Path) -> list[Path]:
    from ssl_lightning.reports.figures import accuracy_against_cost, accuracy_against_fraction, log_spectra

    files = []
    datasets = list(dict.fromkeys(cell.identity["dataset"] for cell in cells))
    for dataset in datasets:
        here = [cell for cell in cells if cell.identity["dataset"] == dataset]
        suffix = f"_{dataset}" if len(datasets) > 1 else ""
        files.append(
            accuracy_against_fraction(
                here,
                _untrained(here),
                ("linear/top1", "knn/top1", *(CLASSIFIER if _classifies(here) else ())),
                output / f"accuracy_against_fraction{suffix}.png",
                f"{dataset}: accuracy against fraction",
            )
        )
        files.append(
            accuracy_against_cost(
                here,
                "linear/top1",
                output / f"accuracy_against_cost{suffix}.png",
                f"{dataset}: accuracy against cost",
            )
        )
        files.append(log_spectra(here, output / f"log_spectra{suffix}.png", f"{dataset}: spectra"))
    return files


def _unfinished(run: "Run", status: str) -> str:
    reason = ""
    if status == "failed":
        reason = ": " + run.error_file.read_text(encoding="utf-8").strip().partition("\n")[0]
    return f"{status}: {run.id}{reason}"
