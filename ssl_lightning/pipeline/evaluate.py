"""The way to an evaluation, top to bottom."""

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.check import own
from ssl_lightning.config.components import locate, make
from ssl_lightning.config.identity import component_name
from ssl_lightning.config.schema import Listed
from ssl_lightning.data.dataset import ImageDataset, SplitName
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluator
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.sources import EncoderSource, check_weights, encoder_digest
from ssl_lightning.evaluation.suite import EvaluationSuite
from ssl_lightning.files import remove_unfinished, safe_name, write_json
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.asked import SCHEMA, Asked, measure
from ssl_lightning.pipeline.launch import fabric_of, start_processes
from ssl_lightning.pipeline.parts import evaluated, of_labels, possible_evaluation
from ssl_lightning.pipeline.transfer import each, normalised_for
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.runs.reading import unless_damaged
from ssl_lightning.runs.run import Run


def evaluate(config: Mapping[str, Any], named: Collection[str] = ()) -> list[Path]:
    """Makes the evaluation of a resolved config unless it is there, and prints it. Returns its file; of a list of
    datasets, those of all that are there.

    Args:
        named: keys of the list that must be.

    It goes into `evaluations/` in the run's folder, whose own results stay as they are; of an encoder that belongs to
    no run, into `<paths.runs>/encoders/<name>/`.
    """
    if config["trainer"].get("profiler") is not None:
        raise UserError("trainer.profiler looks at training, and ssl-evaluate trains nothing. Leave it out.")
    if config["evaluation"].get("datasets") and (config.get("dataset") or config["evaluation"].get("dataset")):
        raise UserError(
            "dataset names what to evaluate on, and evaluation.datasets does, too. Leave dataset out; another one is "
            "added with +dataset@evaluation.datasets.NAME=<option>."
        )
    source: EncoderSource = make(config["encoder"])
    torch.manual_seed(0)  # random weights are the same in every process and call
    encoder = source.load()
    fabric = fabric_of(make(config["trainer"]))
    processes = start_processes(fabric)
    if processes.rank == 0 and (said := _unfinished(source, encoder)):  # others would take its lock while it looks
        print(said, flush=True)
    device = fabric.device if fabric is not None else device_of(config["trainer"]["accelerator"])
    on = partial(_evaluate_on, config, source, encoder, processes, device)
    if not (listed := config["evaluation"].get("datasets")):
        return [on(_dataset(config, source, encoder))]
    return each(listed, encoder, on, named)


def _unfinished(source: EncoderSource, encoder: Encoder) -> str:
    """What is evaluated of a run that trains on, or may; empty of one that is finished."""
    if (folder := source.run_folder()) is None or (status := Run(folder).status) == "finished":
        return ""
    steps = "" if encoder.optimizer_steps is None else f", of optimizer step {encoder.optimizer_steps:,}"
    return f"{source.name()} {'has' if status == 'failed' else 'is'} {status}: evaluated is its last checkpoint{steps}"


def _dataset(config: Mapping[str, Any], source: EncoderSource, encoder: Encoder) -> ImageDataset:
    """What the encoder is to look at, prepared."""
    key = "dataset" if config.get("dataset") else "evaluation.dataset"
    if (described := config.get("dataset") or config["evaluation"].get("dataset") or _of_run(source)) is None:
        raise UserError(f"dataset has no value: say what {source.name()} is to look at, for instance dataset=cifar10.")
    settings: Mapping[str, Any] = described if config.get("dataset") else _here(described, config)
    safe_name(settings["name"], "dataset.name")
    dataset = evaluated(normalised_for(encoder, settings), key)
    try:
        dataset.prepare()
    except UserError as error:
        raise _moved(error, settings, source) if settings is not config.get("dataset") else error from None
    return dataset


def _evaluate_on(
    config: Mapping[str, Any],
    source: EncoderSource,
    encoder: Encoder,
    processes: ProcessGroup,
    device: torch.device,
    dataset: ImageDataset,
) -> Path:
    """The file of what the encoder makes of the dataset, made unless it is there."""
    evaluation = possible_evaluation(config["evaluation"], dataset)
    if evaluation is not config["evaluation"]:
        if not issubclass(locate(config["evaluation"]["_target_"]), EvaluationSuite):  # somebody has asked for it
            raise UserError(
                f"evaluation={component_name(config['evaluation'])} needs labels, but {dataset.name} "
                f"{dataset.unlabelled}. Name labelled data, such as dataset=cifar10, or choose evaluation=none."
            )
        rank_zero_only(print)(of_labels(dataset, "dataset"), flush=True)
    evaluator: Evaluator = make(own(evaluation, Listed))
    evaluator.check(dataset)
    channels = len(encoder.mean)
    if dataset.channels not in (1, channels):
        raise UserError(
            f"{source.name()} sees images of {channels} channel{'s' * (channels > 1)}, but those of {dataset.name} "
            f"have {dataset.channels}. Choose another dataset, or dataset.channels={channels} where it can convert."
        )
    weights = encoder_digest(encoder)
    seen: list[SplitName] = ["train"]
    if evaluator.needs_labels:
        seen += ["val", "test"] if dataset.has_val else ["test"]
    what = [asdict(dataset.fingerprint(split)) for split in seen]
    protocol = protocol_of(own(evaluation, Listed), dataset, type(evaluator))
    cache = Path(config["paths"]["cache"]).absolute()
    asked = Asked(evaluator, dataset, what, protocol, cache, config["batch_size"])
    name = f"{dataset.name}-{asked.identity(weights)[:8]}"
    folder = source.run_folder() or Path(config["paths"]["runs"]) / "encoders" / f"{source.name()}-{weights[:8]}"
    run = Run(folder)
    file = run.evaluation_file(name)
    baseline = source.untrained() if evaluator.untrained else None
    title = f"{source.name()} on {dataset.name}"

    def whole() -> bool:
        """Whether it has all that is asked for, and then shows it. Only the first process looks."""
        former = _former(run, file)
        if former is None or (baseline is not None and "untrained" not in former):
            return False
        _show(title, former, file)
        return True

    with processes.building(file, whole) as missing:  # of two commands at once, the second finds what the first made
        if missing:
            processes.by_first(lambda: remove_unfinished(file.parent))
            for one in (encoder, baseline):
                check_weights(one, source.name())
            about = {
                "schema": SCHEMA,
                "encoder": source.name(),
                "weights": weights,
                "optimizer_steps": encoder.optimizer_steps,
                "dataset": dataset.name,
                "fingerprints": what,
                "protocol": protocol.as_dict(),
                "evaluation": {key: value for key, value in evaluation.items() if key != "datasets"},
            }

            def keep(measured: Mapping[str, Any]) -> None:
                write_json(file, {**about, **measured})
                _show(title, measured, file)

            former = processes.by_first(lambda: _former(run, file, speaks=False))
            measure(asked, encoder, baseline, source.name(), processes, device, keep, former)
    return file


def _former(run: Run, file: Path, speaks: bool = True) -> dict[str, Any] | None:
    """The evaluation that is there, if any."""
    if not os.path.lexists(file):
        return None
    return unless_damaged(lambda: run.evaluation(file), "It is made again.", speaks)


def _of_run(source: EncoderSource) -> dict[str, Any] | None:
    """The dataset of a run, without what its nuisance did to the images of training."""
    dataset = source.dataset()
    return dataset and {key: value for key, value in dataset.items() if key != "nuisance"}


def _here(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The dataset of a run, which may come from anywhere: nothing is fetched for it, or kept where it says."""
    caches = {"cache": config["paths"]["cache"]} if "cache" in dataset else {}
    return {**dataset, **caches, "download": False}


def _moved(error: UserError, dataset: Mapping[str, Any], source: EncoderSource) -> UserError:
    """The data that a run's config names are not there, or no more."""
    given = " ".join(f"dataset.{key}={dataset[key]}" for key in ("image_size", "channels") if key in dataset)
    return UserError(
        f"{error} So says the config of {source.name()}. Where its data lie elsewhere by now, say where: "
        f"dataset=<option> dataset.root=<folder> {given}".rstrip()
    )


def _show(title: str, result: Mapping[str, Any], file: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)
    console.print(title, soft_wrap=True)  # which may be wider than the table
    table = Table(box=None)
    table.add_column("metric")
    table.add_column("value", justify="right")
    untrained = result.get("untrained", {})
    if untrained:
        table.add_column("untrained", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(
            name, f"{value:.4g}", *([f"{untrained[name]:.4g}" if name in untrained else ""] * bool(untrained))
        )
    console.print(table)
    print(file, flush=True)
