"""The way to a ranking, top to bottom."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.config.components import make
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.processes import fabric_of, start_processes
from ssl_lightning.reports.rankings import contact_sheet, describe, gain_curve
from ssl_lightning.subsets.rule import SubsetRule


def select(config: Mapping[str, Any]) -> Path | None:
    """Makes the ranking of a resolved config unless it is there, and describes it. Returns its file."""
    dataset: ImageDataset = make(config["dataset"])
    rule: SubsetRule = make(config["subset"], _convert_="object")
    if not rule.expensive:
        raise UserError(
            f"subset={rule.name} needs no ranking beforehand: ssl-train draws it at once. Choose another subset, "
            "such as subset=sas."
        )
    if config["trainer"]["fast_dev_run"]:
        rule.rehearsal().ranking(dataset)
        print("fast_dev_run: a ranking was made of an untrained proxy, and nothing was kept.", flush=True)
        return None
    path = rule.ranking_file(dataset)
    if path is None:
        raise UserError("subset.cache is null, but a ranking must be kept somewhere. Leave it at ${paths.cache}.")
    fabric = fabric_of(config["trainer"])
    if not path.exists():
        rule.prepare()  # before other processes start, which would wait for a proxy only so long
    # Even where the ranking is there: it may have been missing when the first process looked.
    processes = start_processes(fabric)
    ranking = rule.ranking(dataset, processes)
    if processes.rank == 0:
        figures = [path.with_suffix(".images.png"), path.with_suffix(".scores.png")]
        if not all(figure.exists() for figure in figures):
            contact_sheet(ranking, dataset.train(), figures[0])
            gain_curve(ranking, figures[1])
        describe(ranking, dataset.train().labels.numpy())
        for file in (path, *figures):
            print(file, flush=True)
    return path
