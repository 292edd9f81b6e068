"""Which plots a report has, and how they are named."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import CLASSIFIER, LINEAR, classifies, columns_of, metrics_of, untrained_encoders
from ssl_lightning.reports.differences import Compared
from ssl_lightning.reports.figures import (
    Plot,
    accuracy_against_cost,
    accuracy_against_fraction,
    has_ranks,
    log_spectra,
    rank_over_training,
)
from ssl_lightning.reports.forest import forest, worth_drawing
from ssl_lightning.reports.tables import plain

RANKS = "rank over training"
"""A figure."""
FOREST = 2
"""Columns of differences that are drawn."""
PANELS = 3
"""Metrics in the figure of an evaluation beside the standard one."""


def plots_of(
    tables: Sequence[Sequence[Cell]], differences: Sequence[Compared], output: Path, narrow: Path
) -> list[Plot]:
    """Draws them.

    Args:
        differences: of some of the tables.
        narrow: folder for what is drawn for narrow windows.
    """
    plots: list[Plot] = []
    taken: set[str] = set()
    datasets: set[str] = set()
    for here in tables:
        dataset, protocol = here[0].identity["dataset"], here[0].protocol
        suffix = f"_{word(dataset)}" if len({table[0].identity["dataset"] for table in tables}) > 1 else ""
        title = dataset
        if "protocol" in here[0].shown:
            title += f" ({protocol})"
            suffix += "" if here is tables[0] else f"_{word(protocol)}"
        while suffix in taken:  # long names may begin alike
            suffix += "-"
        taken.add(suffix)
        own, several = columns_of(here), len({cell.fraction for cell in here}) > 1
        columns = metrics_of(here)
        linear = next(name for name in columns if own or name in LINEAR)
        accuracies = (linear, "knn/top1", *(CLASSIFIER if classifies(here) else ()))
        drawn = {metric: columns[metric] for metric in (list(own)[:PANELS] if own else accuracies)}
        draw: dict[str, Callable[..., Path]] = {
            "accuracy against fraction": partial(accuracy_against_fraction, here, untrained_encoders(here), drawn)
        }
        if not own:
            draw["accuracy against cost"] = partial(accuracy_against_cost, here, linear, columns[linear])
            draw["log spectra"] = partial(log_spectra, here)
        for compared in differences:
            if compared.cells is here and worth_drawing(compared):
                draw["differences"] = partial(forest, compared, list(drawn.values())[:FOREST])
        if dataset not in datasets and has_ranks(here):  # the same whatever encoders were evaluated on
            draw[RANKS] = partial(rank_over_training, here)
        datasets.add(dataset)
        for what, of in draw.items():
            file = f"{what.replace(' ', '_')}{suffix}.png"
            heading = (
                f"{dataset if what == RANKS else title}: {what if several else what.removesuffix(' against fraction')}"
            )
            plots.append(Plot(of(output / file, heading), of(narrow / file, heading, narrow=True), title))
    return plots


def in_markdown(figures: Sequence[Plot]) -> list[str]:
    """In Markdown: those about the same together, folded up but for the first."""
    lines: list[str] = []
    about = list(dict.fromkeys(figure.about for figure in figures))
    for title in about:
        pictures = [f"![{figure.wide.stem}]({figure.wide.name})\n" for figure in figures if figure.about == title]
        folded = title != about[0]
        lines += [f"<details><summary>{plain(title)}</summary>\n", *pictures, "</details>\n"] if folded else pictures
    return lines


def word(text: str) -> str:
    """For names of files, whatever somebody else's run says."""
    return re.sub("[^a-z0-9._]+", "-", text.lower()).strip("-.")[:60]
