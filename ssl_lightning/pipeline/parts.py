"""What a run is made of, made once from its config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import lightning as L

from ssl_lightning.config.check import beside, own
from ssl_lightning.config.components import locate, make
from ssl_lightning.config.identity import component_name, contents_of, marked, run_digest
from ssl_lightning.config.markers import IRRELEVANT, Seed
from ssl_lightning.config.schema import Cut, Evaluated, TrainConfig
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.protocol import Protocol, protocol_of
from ssl_lightning.evaluation.splits import Splits, few_of, splits_of
from ssl_lightning.evaluation.suite import EvaluationSuite, RanksOnly
from ssl_lightning.files import folder_of_sweep, safe_name
from ssl_lightning.pipeline.proxies import ProxyRun, Train, proxies_of
from ssl_lightning.pipeline.trainer import make_trainer
from ssl_lightning.runs.initial import initial_content
from ssl_lightning.runs.run import Identity, Run, named_as_in
from ssl_lightning.subsets.rule import Subset, SubsetRule


@dataclass(frozen=True)
class Parts:
    """Of a run.

    Args:
        dataset: what is pretrained on.
        subset: which images of it.
        proxies: runs that the subset is ranked with.
        evaluation: settings of the suite.
        suite, evaluated: what is done with the frozen encoder, and on which dataset.
        protocol: what tells its numbers from those of other evaluations.
        rehearsal: all is done with little, and nothing kept.
        identify: what the run of another config would be that reads the same.
    """

    dataset: ImageDataset
    subset: Subset
    proxies: Sequence[ProxyRun]
    evaluation: Mapping[str, Any]
    suite: EvaluationSuite
    evaluated: ImageDataset
    protocol: Protocol
    trainer: L.Trainer
    identity: Identity
    run: Run
    rehearsal: bool
    identify: Callable[[Mapping[str, Any]], Identity]

    @cached_property
    def splits(self) -> Splits:
        """What the suite looks at."""
        splits = splits_of(self.suite.needs_labels, self.evaluated)
        return few_of(splits) if self.rehearsal else splits


def parts_of(config: Mapping[str, Any], train: Train, alone: bool) -> Parts:
    """
    Args:
        config: resolved.
        train: how proxies are trained.
        alone: see `make_trainer`.
    """
    dataset: ImageDataset = make(config["dataset"])
    subset, proxies = subset_of(config, train)
    evaluation = config["evaluation"]
    if evaluation.get("dataset") is None:
        evaluation = possible_evaluation(evaluation, dataset)
    suite, evaluated = evaluation_of(evaluation, dataset)
    trainer = make_trainer(make(config["trainer"]), alone)
    read = {"data": dataset.content_digest("train"), "subset": subset.rank.content_digest(), **initial_content(config)}
    further = {
        "subset": "-".join([*(proxy.digest for proxy in proxies), read["subset"]]),
        "accelerator": type(trainer.accelerator).__name__,
        "processes": trainer.world_size,
    }
    safe_name(dataset.name, "dataset.name")
    identify = partial(identity_of, read=read, further=further)
    sweep, identity = folder_of_sweep(config["paths"]["runs"], config["sweep"]), identify(config)
    safe_name(identity.subset, "subset.name" if config["subset"].get("name") else "the name of the subset rule")
    identity = named_as_in(sweep, identity)
    run = Run(sweep / identity.run_name)
    protocol = protocol_of(evaluation, evaluated, type(suite))
    rehearsal = bool(config["trainer"]["fast_dev_run"])
    what = dataset, subset, proxies, evaluation, suite, evaluated, protocol
    return Parts(*what, trainer, identity, run, rehearsal, identify)


def identity_of(
    config: Mapping[str, Any], read: Mapping[str, str] | None = None, further: Mapping[str, Any] | None = None
) -> Identity:
    """What the run of a resolved config is.

    Args:
        read: digests of what it reads, in which the runs of a cell do not differ.
        further: what it depends on besides.
    """
    contents = dict(read or {})
    marks = list(marked(config, TrainConfig))
    return Identity(
        method=component_name(config["method"]),
        dataset=config["dataset"]["name"],
        subset=name_of_subset(config["subset"]),
        fraction=beside(config["subset"], Cut)["fraction"],
        seed=config["seed"],
        budget=config["budget"],
        nuisance=locate(nuisance["_target_"]).name if (nuisance := config["dataset"].get("nuisance")) else "",
        digest=run_digest(config, TrainConfig, {**contents, **(further or {})}),
        contents=contents_of(config, contents),
        ignored=[key for key, marker in marks if marker in IRRELEVANT or key in contents],  # which stand for these
        seeds=[key for key, marker in marks if marker is Seed],
    )


def name_of_subset(described: Mapping[str, Any]) -> str:
    """In folders and tables, of the config of a subset."""
    return str(beside(described, Cut)["name"] or locate(described["_target_"]).name)


def subset_of(config: Mapping[str, Any], train: Train) -> tuple[Subset, Sequence[ProxyRun]]:
    """The subset of a resolved config, and the runs that it is ranked with."""
    rule: SubsetRule = make(own(config["subset"], Cut))
    cut = beside(config["subset"], Cut)
    if config["trainer"]["fast_dev_run"]:
        rule = rule.for_fast_dev_run()
    return Subset(rule, cut["fraction"], cut["budget"]), proxies_of(config, rule, train)


def possible_evaluation(config: Mapping[str, Any], dataset: ImageDataset) -> Mapping[str, Any]:
    """The settings of an evaluation of this dataset; where it needs labels and these are known to be missing, those of
    `evaluation=none`."""
    if not dataset.unlabelled or not locate(config["_target_"]).needs_labels:
        return config
    target = f"{RanksOnly.__module__}.{RanksOnly.__qualname__}"
    return {"_target_": target, "untrained": config.get("untrained", False), "dataset": None}


def of_labels(dataset: ImageDataset, key: str = "evaluation.dataset") -> str:
    """What a user should know of an evaluation that was chosen for lack of labels; `key` names other data."""
    return (
        f"{dataset.name} {dataset.unlabelled}: evaluation=none is chosen, spectra and ranks. To evaluate on labelled "
        f"data, name them: {key}=cifar10."
    )


def evaluated(settings: Mapping[str, Any], key: str) -> ImageDataset:
    """The dataset of these settings, to be evaluated on: without a nuisance.

    Args:
        key: where they stand in the config.

    Raises:
        UserError: they have one.
    """
    if settings.get("nuisance") is not None:
        raise UserError(
            f"{key}.nuisance is set, but evaluations see the images as they are: it is for what is pretrained on. "
            "Leave it out."
        )
    return make(settings)


def evaluation_of(config: Mapping[str, Any], pretrained: ImageDataset) -> tuple[EvaluationSuite, ImageDataset]:
    """The suite, and the dataset that it evaluates on: by default what is pretrained on."""
    suite: EvaluationSuite = make(own(config, Evaluated))
    described = beside(config, Evaluated)["dataset"]
    dataset = pretrained if described is None else evaluated(described, "evaluation.dataset")
    if dataset.channels not in (1, pretrained.channels):
        raise UserError(
            f"evaluation.dataset has {dataset.channels} channels, but the encoder is trained on images of "
            f"{pretrained.channels}. Choose another dataset, or evaluation.dataset.channels={pretrained.channels} "
            "where it can convert."
        )
    return suite, dataset
