"""The way to a ranking, top to bottom."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from ssl_lightning.data.datasets import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.reports.rankings import contact_sheet, describe, gain_curve
from ssl_lightning.subsets.mask import SubsetRule
from ssl_lightning.subsets.team import ALONE, Team

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def select(config: Mapping[str, Any]) -> Path | None:
    """Makes the ranking of a resolved config unless it is there, and describes it. Returns its file."""
    dataset: ImageDataset = instantiate(config["dataset"])
    rule: SubsetRule = instantiate(config["subset"], _convert_="object")
    if not rule.expensive:
        raise UserError(
            f"subset={rule.name} needs no ranking beforehand: ssl-train draws it at once. Choose another subset, "
            "such as subset=sas."
        )
    if config["trainer"]["fast_dev_run"]:
        rule.rehearsal().ranking(dataset)
        print("fast_dev_run: a ranking was made of an untrained proxy, and nothing was kept.", flush=True)
        return None
    path = rule.path(dataset)
    if path is None:
        raise UserError("subset.cache is null, but a ranking must be kept somewhere. Leave it at ${paths.cache}.")
    fabric = _fabric(config["trainer"])
    if not path.exists():
        rule.prepare()  # before other processes start, which would wait for a proxy only so long
    team = ALONE
    if fabric is not None:
        fabric.launch()  # even where the ranking is there: it may have been missing when the first process looked
        team = Team(fabric.global_rank, fabric.world_size, fabric.barrier)
    ranking = rule.ranking(dataset, team)
    if team.rank == 0:
        figures = [path.with_suffix(".images.png"), path.with_suffix(".scores.png")]
        if not all(figure.exists() for figure in figures):
            contact_sheet(ranking, dataset.train(), figures[0])
            gain_curve(ranking, figures[1])
        describe(ranking, dataset.train().labels.numpy())
        for file in (path, *figures):
            print(file, flush=True)
    return path


def _fabric(trainer: Mapping[str, Any]) -> "Fabric | None":
    """What starts the processes that the trainer's settings ask for; None where this one is all."""
    if trainer["strategy"] == "auto" and trainer["devices"] == 1 and trainer["num_nodes"] == 1:
        return None
    from lightning.fabric import Fabric

    from ssl_lightning.training import quiet, refuse_in_multirun

    quiet()
    fabric = Fabric(**{key: trainer[key] for key in ("accelerator", "strategy", "devices", "num_nodes")})
    refuse_in_multirun(fabric.world_size)
    return fabric
