"""The way to an evaluation, top to bottom."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.check import own
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import digest_of
from ssl_lightning.config.schema import Evaluated
from ssl_lightning.data.dataset import ImageDataset, Split, SplitName
from ssl_lightning.devices import device_of, solving_device
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import Features, extract, stored
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.sources import EncoderSource, encoder_digest
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.evaluation.suite import EvaluationSuite
from ssl_lightning.files import safe_name, write_json
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.launch import fabric_of, start_processes
from ssl_lightning.pipeline.parts import of_labels, possible_evaluation
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.runs.reading import unless_damaged
from ssl_lightning.runs.run import Run

SCHEMA = 2


def evaluate(config: Mapping[str, Any]) -> Path:
    """Makes the evaluation of a resolved config unless it is there, and prints it. Returns its file.

    It goes into `evaluations/` in the run's folder, whose own results stay as they are; of an encoder that belongs to
    no run, into `<paths.runs>/encoders/<name>/`.
    """
    if config["trainer"].get("profiler") is not None:
        raise UserError("trainer.profiler looks at training, and ssl-evaluate trains nothing. Leave it out.")
    source: EncoderSource = make(config["encoder"])
    if (described := config.get("dataset") or config["evaluation"].get("dataset") or source.dataset()) is None:
        raise UserError(f"dataset has no value: say what {source.name()} is to look at, for instance dataset=cifar10.")
    settings: Mapping[str, Any] = described if config.get("dataset") else _here(described, config)
    safe_name(settings["name"], "dataset.name")
    dataset: ImageDataset = make(settings)
    try:
        dataset.prepare()
    except UserError as error:
        raise _moved(error, settings, source) if settings is not config.get("dataset") else error from None
    evaluation = possible_evaluation(config["evaluation"], dataset)
    if evaluation is not config["evaluation"]:
        rank_zero_only(print)(of_labels(dataset, "dataset"), flush=True)
    suite: EvaluationSuite = make(own(evaluation, Evaluated))
    suite.check(dataset)
    torch.manual_seed(0)  # random weights are the same in every process and call
    encoder = source.load()
    channels = len(encoder.mean)
    if dataset.channels not in (1, channels):
        raise UserError(
            f"{source.name()} sees images of {channels} channel{'s' * (channels > 1)}, but those of {dataset.name} "
            f"have {dataset.channels}. Choose another dataset, or dataset.channels={channels} where it can convert."
        )
    weights = encoder_digest(encoder)
    seen: list[SplitName] = ["train"]
    if suite.needs_labels:
        seen += ["val", "test"] if dataset.has_val else ["test"]
    what = [asdict(dataset.fingerprint(split)) for split in seen]
    protocol = protocol_of(evaluation, dataset)
    identity = [SCHEMA, what, dataset.validation_fraction, protocol.as_dict(), weights]
    name = f"{dataset.name}-{digest_of(identity)[:8]}"
    folder = source.run_folder() or Path(config["paths"]["runs"]) / "encoders" / f"{source.name()}-{weights[:8]}"
    run = Run(folder)
    file = run.evaluation_file(name)
    fabric = fabric_of(make(config["trainer"]))
    processes = start_processes(fabric)
    former = _former(run, file) if processes.rank == 0 else None
    if processes.broadcast(former is not None):  # what the first process saw: another job may be faster
        if former is not None:
            _show(f"{source.name()} on {dataset.name}", former, file)
        return file
    device = fabric.device if fabric is not None else device_of(config["trainer"]["accelerator"])
    cache = Path(config["paths"]["cache"]).absolute() / "features" / digest_of([what, weights])[:16]
    batch_size = config["batch_size"]
    train, test, validation = splits_of(suite, dataset)
    splits = {"all": train} if test is None else {"train": train, "test": test}
    images = " and ".join(f"{len(split.labels):,}" for split in splits.values())
    rank_zero_only(print)(f"{source.name()} looks at {images} images of {dataset.name}", flush=True)
    made = [_features(encoder.to(device), split, cache / part, processes, batch_size) for part, split in splits.items()]
    if processes.rank == 0:
        solving = solving_device(device)
        metrics, spectra = suite(made[0], made[-1], validation, int(dataset.num_classes or 0), solving)
        result = {
            "schema": SCHEMA,
            "encoder": source.name(),
            "weights": weights,
            "optimizer_steps": encoder.optimizer_steps,
            "dataset": dataset.name,
            "fingerprints": what,
            "protocol": protocol.as_dict(),
            "metrics": metrics,
            "spectra": spectra,
            "evaluation": evaluation,
            **({} if test is None else {"test_images": len(test.labels)}),
        }
        write_json(file, result)
        _show(f"{source.name()} on {dataset.name}", result, file)
    return file


def _former(run: Run, file: Path) -> dict[str, Any] | None:
    """The evaluation that is there, if any."""
    if not os.path.lexists(file):
        return None
    return unless_damaged(lambda: run.evaluation(file), "It is made again.")


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


def _features(encoder: Encoder, split: Split, folder: Path, processes: ProcessGroup, batch_size: int) -> Features:
    """From the cache, or made and kept there."""
    done = folder / "DONE"
    with processes.building(done) as missing:
        if missing:
            extract(encoder.features, split, processes, folder, batch_size, bar=f"features of {folder.name}")
            processes.by_first(done.touch)
    return stored(split, folder)


def _show(title: str, result: Mapping[str, Any], file: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.4g}")
    Console(markup=False).print(table)
    print(file, flush=True)
