"""The way to a ranking, top to bottom."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.config.components import make
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.launch import fabric_of, start_processes
from ssl_lightning.pipeline.parts import subset_of
from ssl_lightning.pipeline.pretrain import train_proxy
from ssl_lightning.reports.rankings import contact_sheet, describe, gain_curve


def rank(config: Mapping[str, Any]) -> Path | None:
    """Makes the ranking of a resolved config unless it is there, and describes it. Returns its file."""
    dataset: ImageDataset = make(config["dataset"])
    subset, proxies = subset_of(config, train_proxy)
    rule = subset.rank
    if not rule.expensive:
        raise UserError(
            f"subset={rule.name} needs no ranking beforehand: ssl-train draws it at once. Choose another subset, "
            "such as subset=sas."
        )
    digests = [proxy.digest for proxy in proxies]
    if config["trainer"]["fast_dev_run"]:
        rule.ranking(dataset, digests, lambda: [proxy.load() for proxy in proxies])
        print("fast_dev_run: a ranking was made of an untrained proxy, and nothing was kept.", flush=True)
        return None
    if config.get("force"):
        raise UserError(
            "force=true trains a run anew, but a ranking is what its settings make it. Leave it out; to make a ranking "
            "again, delete its file."
        )
    path = rule.ranking_file(dataset, digests)
    if path is None:
        raise UserError("subset.cache is null, but a ranking must be kept somewhere. Leave it at ${paths.cache}.")
    fabric = fabric_of(make(config["trainer"]))
    if not path.exists():
        rule.check_dataset(dataset)
        for proxy in proxies:  # before other processes start, which would wait for it only so long
            proxy.load()
    # Even where the ranking is there: it may have been missing when the first process looked.
    processes = start_processes(fabric)
    ranking = rule.ranking(dataset, digests, lambda: [proxy.load() for proxy in proxies], processes)
    if processes.rank == 0:
        sheet, curve = path.with_suffix(".images.png"), path.with_suffix(".scores.png")
        figures = [sheet, *([curve] if ranking.scored else [])]
        if not all(figure.exists() for figure in figures):
            contact_sheet(ranking, dataset.train(), sheet)
            if ranking.scored:
                gain_curve(ranking, curve)
        describe(ranking, dataset.train().labels.numpy())
        for file in (path, *figures):
            print(file, flush=True)
    return path
