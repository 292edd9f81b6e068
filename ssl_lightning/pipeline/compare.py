"""The way from the rankings of a multirun to a comparison of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_lightning.config.components import make
from ssl_lightning.config.grid import Grid
from ssl_lightning.data.dataset import Fingerprint, ImageDataset
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.journal import journal_of
from ssl_lightning.pipeline.lists import read_lists
from ssl_lightning.pipeline.parts import name_of_subset, subset_of
from ssl_lightning.pipeline.pretrain import train_proxy
from ssl_lightning.pipeline.rank import of_training
from ssl_lightning.reports.comparison import Quantity
from ssl_lightning.reports.selection_page import agreement_in_words, write_comparison
from ssl_lightning.reports.selections import OF_ALL, OF_CLASS, OF_LABEL, Chosen, Typicality, correlations
from ssl_lightning.subsets.comparing import typicality
from ssl_lightning.subsets.embedding import EmbeddingRule
from ssl_lightning.subsets.ranking import Ranking

FOLDER = "rankings"
"""Name of a folder in `paths.runs`."""


class _Ranked(NamedTuple):
    """A file of a ranking: the config and the overrides of the job that left it, or found it, first."""

    config: Mapping[str, Any]
    job: tuple[str, ...]


class _Found(NamedTuple):
    """What there is of a dataset to compare: rankings by their files, and paths of lists."""

    dataset: ImageDataset
    rankings: dict[Path, _Ranked]
    lists: Sequence[str]


def compare(grid: Grid) -> None:
    """Compares the rankings that the jobs of a grid have left with one another and with `lists`: a report for each
    dataset of which there are two, in <paths.runs>/rankings/<dataset>, and a table in the terminal.

    Raises:
        UserError: a list is none, or of other images.
    """
    taken: set[Path] = set()
    for found in _by_dataset(grid):
        dataset = found.dataset
        names = names_of([one.job for one in found.rankings.values()])
        chosen = [
            Chosen(name or name_of_subset(one.config["subset"]), Ranking.load(path, dataset.fingerprint()))
            for name, (path, one) in zip(names, found.rankings.items(), strict=True)
        ]
        typical = _typicality(dataset, chosen, [one.config for one in found.rankings.values()])
        chosen += read_lists(found.lists, dataset)
        if len(chosen) < 2:
            print(f"One ranking of {dataset.name}: there is nothing to compare it with.", flush=True)
            continue
        folder = grid.runs / FOLDER / dataset.name
        if folder in taken:  # other images of the same name
            folder = folder.with_name(f"{folder.name}-{dataset.fingerprint().digest[:8]}")
        taken.add(folder)
        split = dataset.train()
        write_comparison(chosen, split, dataset.name, folder, typical)
        _say(chosen, split.labels.numpy(), dataset.name, folder)


def _by_dataset(grid: Grid) -> Iterable[_Found]:
    journal, jobs = journal_of(grid.runs, grid.file, grid.folders), grid.jobs or ()
    found: dict[Fingerprint, _Found] = {}
    plain = [[word for word in job if not word.startswith("export=")] for job in jobs]  # it may ask what Hydra runs
    for job, config in zip(jobs, grid.configs(plain), strict=True):
        told = journal.told(job)
        if config is None or told is None or told.error or told.run is None or not told.run.is_file():
            continue
        dataset: ImageDataset = make(config["dataset"])
        of_dataset = found.setdefault(dataset.fingerprint(), _Found(dataset, {}, config["lists"]))
        of_dataset.rankings.setdefault(told.run, _Ranked(config, job))
    return found.values()


def _typicality(
    dataset: ImageDataset, chosen: Sequence[Chosen], configs: Sequence[Mapping[str, Any]]
) -> Typicality | None:
    """By the embeddings of the first of these rules whose embeddings are kept; None where no rule has any."""
    lost = []
    for one, config in zip(chosen, configs, strict=True):
        subset, proxies = subset_of(of_training(config), train_proxy)
        if not isinstance(subset.rank, EmbeddingRule):
            continue
        try:
            features = subset.rank.kept_features(dataset, proxies[0].digest)
        except UserError:
            features = None
        if features is None or len(features) != len(one.ranking):
            lost.append(one.name)
            continue
        labels = dataset.train().labels.numpy()
        groups, fellows = labels, OF_LABEL
        if (labels < 0).any():
            groups = one.ranking.latent_class
            fellows = OF_CLASS if len(np.unique(groups)) > 1 else OF_ALL
        return Typicality.of(one.name, fellows, typicality(features, groups, device_of(subset.rank.accelerator)))
    return Typicality.lost(lost) if lost else None


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
