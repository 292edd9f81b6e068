"""The way from the rankings of a multirun to a comparison of them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from ssl_lightning.config.components import make
from ssl_lightning.config.grid import Grid
from ssl_lightning.data.dataset import Fingerprint, ImageDataset
from ssl_lightning.launchers.journal import journal_of
from ssl_lightning.pipeline.parts import name_of_subset
from ssl_lightning.reports.comparison import Quantity
from ssl_lightning.reports.selection_page import agreement_in_words, write_comparison
from ssl_lightning.reports.selections import Chosen, correlations
from ssl_lightning.subsets.file import File
from ssl_lightning.subsets.ranking import Ranking

FOLDER = "rankings"
"""Name of a folder in `paths.runs`."""


def compare(grid: Grid) -> None:
    """Compares the rankings that the jobs of a grid have left with one another and with `lists`: a report for each
    dataset of which there are two, in <paths.runs>/rankings/<dataset>, and a table in the terminal.

    Raises:
        UserError: a list is none, or of other images.
    """
    taken: set[Path] = set()
    for dataset, made, lists in _by_dataset(grid):
        rankings = {path: Ranking.load(path, dataset.fingerprint()) for path in made}
        chosen = [Chosen(made[path], one) for path, one in rankings.items()]
        chosen += [Chosen(name, File(path=path).rank(dataset)) for path, name in _names_of_lists(lists).items()]
        if len(chosen) < 2:
            continue
        folder = grid.runs / FOLDER / dataset.name
        if folder in taken:  # other images of the same name
            folder = folder.with_name(f"{folder.name}-{dataset.fingerprint().digest[:8]}")
        taken.add(folder)
        split = dataset.train()
        write_comparison(chosen, split, dataset.name, folder)
        _say(chosen, split.labels.numpy(), dataset.name, folder)


def _by_dataset(grid: Grid) -> Iterator[tuple[ImageDataset, dict[Path, str], Sequence[str]]]:
    """Each dataset, the files of its rankings with their names, and paths of lists."""
    journal, jobs = journal_of(grid.runs, grid.file, grid.folders), grid.jobs or ()
    found: dict[Fingerprint, tuple[ImageDataset, dict[Path, tuple[str, ...]], Sequence[str]]] = {}
    called: dict[Path, str] = {}
    plain = [[word for word in job if not word.startswith("export=")] for job in jobs]  # it may ask what Hydra runs
    for job, config in zip(jobs, grid.configs(plain), strict=True):
        told = journal.told(job)
        if config is None or told is None or told.error or told.run is None or not told.run.is_file():
            continue
        dataset: ImageDataset = make(config["dataset"])
        _, files, _ = found.setdefault(dataset.fingerprint(), (dataset, {}, config["lists"]))
        files.setdefault(told.run, job)
        called.setdefault(told.run, name_of_subset(config["subset"]))
    for dataset, files, lists in found.values():
        names = names_of(list(files.values()))
        yield dataset, {file: name or called[file] for file, name in zip(files, names, strict=True)}, lists


def names_of(jobs: Sequence[Sequence[str]]) -> list[str]:
    """What tells jobs apart, by their overrides: of `subset=sas subset.looks=2` and `subset=sas subset.looks=4` the
    rule and the looks. Empty where nothing does."""
    jobs = [[word for word in job if not word.startswith("export=")] for job in jobs]
    everywhere = set.intersection(*map(set, jobs))
    names = []
    for job in jobs:
        rule = [word.partition("=")[2] for word in job if word.startswith("subset=")]
        others = [re.sub(r"^subset\.", "", w) for w in job if w not in everywhere and not w.startswith("subset=")]
        names.append(", ".join([*rule, *others]))
    return names


def _names_of_lists(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, or all of it where others end alike."""
    last = [Path(path).name for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def _say(chosen: Sequence[Chosen], labels: Int64[np.ndarray, " n"], dataset: str, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console, rows = Console(markup=False, highlight=False), correlations(chosen, labels)
    table = Table("rules", "ρ", box=None, padding=(0, 2, 0, 0))
    for row, one in zip(rows, chosen[1:], strict=True):
        for other, found in zip(chosen[:-1], list(row.values())[1:], strict=True):
            if isinstance(found, Quantity) and found.text:
                table.add_row(f"{other.name} – {one.name}", found.text)
    console.print(f"\n{len(chosen)} rankings of {dataset}", style="bold")
    console.print(table)
    console.print(agreement_in_words(labels), style="dim")
    where = f"Comparison: {folder / 'report.html'}\n            {folder / 'report.md'}, with pictures beside it"
    console.print(where, soft_wrap=True)
