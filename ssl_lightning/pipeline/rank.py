"""The way to a ranking, top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.components import make
from ssl_lightning.config.schema import SelectConfig, TrainConfig
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.export.ranking import publish
from ssl_lightning.launchers.journal import tell_run
from ssl_lightning.pipeline.launch import fabric_of, start_processes
from ssl_lightning.pipeline.lists import read_lists
from ssl_lightning.pipeline.parts import name_of_subset, subset_of
from ssl_lightning.pipeline.pretrain import train_proxy
from ssl_lightning.reports.planted import describe_planted
from ssl_lightning.reports.rankings import contact_sheet, describe, gain_curve
from ssl_lightning.subsets.random import Full
from ssl_lightning.subsets.rule import SubsetRule

OF_RANKINGS = {one.name for one in fields(SelectConfig)} - {one.name for one in fields(TrainConfig)}


def of_training(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config without the keys that say what is done with a ranking, which are none of a training."""
    return {key: value for key, value in config.items() if key not in OF_RANKINGS}


def rank(config: Mapping[str, Any]) -> Path | None:
    """Makes the ranking of a resolved config unless it is there, describes it, and hands it on where `export` says so.
    Returns its file."""
    to, lists = config.get("export"), config.get("lists", [])
    config = of_training(config)
    dataset: ImageDataset = make(config["dataset"])
    read_lists(lists, dataset)  # compared only at the end, but a wrong one is named before hours of work
    subset, proxies = subset_of(config, train_proxy)
    rule = subset.rank
    if isinstance(rule, Full):
        raise UserError("subset=full takes all images, and ranks none. Choose another subset, such as subset=sas.")
    digests = [proxy.digest for proxy in proxies]
    if notice := dataset.nuisance_notice():
        rank_zero_only(print)(notice, flush=True)
    if config["trainer"]["fast_dev_run"]:
        rule.ranking(dataset, digests, lambda: [proxy.load() for proxy in proxies])
        how = "of an untrained proxy, " if proxies else ""
        print(f"fast_dev_run: a ranking was made {how}and nothing was kept.", flush=True)
        return None
    if config.get("force"):
        raise UserError(
            "force=true trains a run anew, but a ranking is what its settings make it. Leave it out; to make a ranking "
            "again, delete its file."
        )
    path = _file(rule, dataset, digests, config["paths"]["cache"])
    fabric = fabric_of(make(config["trainer"]))
    if not path.exists():
        rule.check_dataset(dataset)
        for proxy in proxies:  # before other processes start, which would wait for it only so long
            proxy.load()
    # Even where the ranking is there: it may have been missing when the first process looked.
    processes = start_processes(fabric)
    ranking = rule.ranking(dataset, digests, lambda: [proxy.load() for proxy in proxies], processes)
    if processes.rank == 0:
        if not rule.expensive:  # ssl-train makes it where it needs it
            ranking.save(path)
        sheet, curve = path.with_suffix(".images.png"), path.with_suffix(".scores.png")
        figures = [sheet, *([curve] if ranking.scored else [])]
        if not all(figure.exists() for figure in figures):
            contact_sheet(ranking, dataset.train(), sheet)
            if ranking.scored:
                gain_curve(ranking, curve)
        describe(ranking, dataset.train().labels.numpy(), name_of_subset(config["subset"]))
        if dataset.nuisance is not None:
            describe_planted(ranking, dataset.origins().numpy())
        for file in (path, *figures):
            print(file, flush=True)
        if to is not None:
            publish(ranking, Path(to))
            print(f"{to}: to be handed on. subset=file subset.path={to} reads it.", flush=True)
        tell_run(path)
    return path


def _file(rule: SubsetRule, dataset: ImageDataset, proxies: Sequence[str], cache: str) -> Path:
    """Where the ranking is kept to be looked at, compared and handed on."""
    if not rule.expensive:
        return rule.file_in(cache, dataset)
    path = rule.ranking_file(dataset, proxies)
    if path is None:
        raise UserError("subset.cache is null, but a ranking must be kept somewhere. Leave it at ${paths.cache}.")
    return path
