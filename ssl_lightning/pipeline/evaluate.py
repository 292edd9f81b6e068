"""The way to an evaluation, top to bottom."""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.check import own
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import digest_of
from ssl_lightning.config.schema import Listed
from ssl_lightning.data.dataset import ImageDataset, Split, SplitName
from ssl_lightning.devices import device_of, solving_device
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluator, Subject
from ssl_lightning.evaluation.features import Features, extract, stored
from ssl_lightning.evaluation.pictures import beside
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.sources import EncoderSource, encoder_digest
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.files import safe_name, write_json
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.launch import fabric_of, start_processes
from ssl_lightning.pipeline.parts import evaluated, of_labels, possible_evaluation
from ssl_lightning.pipeline.transfer import each
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.runs.pictures import drawable
from ssl_lightning.runs.reading import unless_damaged
from ssl_lightning.runs.run import Run

SCHEMA = 2


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
    device = fabric.device if fabric is not None else device_of(config["trainer"]["accelerator"])
    on = partial(_evaluate_on, config, source, encoder, processes, device)
    if not (listed := config["evaluation"].get("datasets")):
        return [on(_dataset(config, source))]
    return each(listed, encoder, on, named)


def _dataset(config: Mapping[str, Any], source: EncoderSource) -> ImageDataset:
    """What the encoder is to look at, prepared."""
    key = "dataset" if config.get("dataset") else "evaluation.dataset"
    if (described := config.get("dataset") or config["evaluation"].get("dataset") or _of_run(source)) is None:
        raise UserError(f"dataset has no value: say what {source.name()} is to look at, for instance dataset=cifar10.")
    settings: Mapping[str, Any] = described if config.get("dataset") else _here(described, config)
    safe_name(settings["name"], "dataset.name")
    dataset = evaluated(settings, key)
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
    identity = [SCHEMA, what, dataset.validation_fraction, protocol.as_dict(), weights]
    name = f"{dataset.name}-{digest_of(identity)[:8]}"
    folder = source.run_folder() or Path(config["paths"]["runs"]) / "encoders" / f"{source.name()}-{weights[:8]}"
    run = Run(folder)
    file = run.evaluation_file(name)
    baseline = source.untrained() if evaluator.untrained else None
    former = _former(run, file) if processes.rank == 0 else None
    if former is not None and baseline is not None and "untrained" not in former:
        former = None
    if processes.broadcast(former is not None):  # what the first process saw: another job may be faster
        if former is not None:
            _show(f"{source.name()} on {dataset.name}", former, file)
        return file
    splits = splits_of(evaluator.needs_labels, dataset)
    named = {"train": splits.train} if splits.test is None else {"train": splits.train, "test": splits.test}
    images = " and ".join(f"{len(split.labels):,}" for split in named.values())
    rank_zero_only(print)(f"{source.name()} looks at {images} images of {dataset.name}", flush=True)
    caches = Path(config["paths"]["cache"]).absolute() / "features"

    def subject_of(encoder: Encoder) -> Subject:
        cache, size = caches / digest_of([what, encoder_digest(encoder)])[:16], config["batch_size"]
        features = {
            part: _features(encoder, split, cache / (part if len(named) > 1 else "all"), processes, size)
            for part, split in named.items()
            if part in evaluator.reads
        }
        return Subject(encoder, dataset, splits, features, solving_device(device), size)

    started = time.monotonic()
    subjects = [subject_of(one.to(device)) for one in (encoder, baseline) if one is not None]

    def measure() -> None:
        metrics, spectra, pictures = evaluator.evaluate(subjects[0])
        untrained = evaluator.evaluate(subjects[1]) if len(subjects) > 1 else None
        result = {
            "schema": SCHEMA,
            "encoder": source.name(),
            "weights": weights,
            "optimizer_steps": encoder.optimizer_steps,
            "dataset": dataset.name,
            "fingerprints": what,
            "protocol": protocol.as_dict(),
            "metrics": _numbers(metrics),
            **({} if untrained is None else {"untrained": _numbers(untrained.metrics)}),
            "spectra": dict(spectra),
            "columns": dict(evaluator.columns),
            "explanation": evaluator.explanation,
            "pictures": beside(drawable(pictures), drawable([] if untrained is None else untrained.pictures)),
            "evaluation": {key: value for key, value in evaluation.items() if key != "datasets"},
            "cost": {"evaluation_seconds": time.monotonic() - started},
            **({} if splits.test is None else {"test_images": len(splits.test.labels)}),
        }
        write_json(file, result)
        _show(f"{source.name()} on {dataset.name}", result, file)

    processes.by_first(measure)  # others wait for it, however long, and go on to the next dataset together
    return file


def _former(run: Run, file: Path) -> dict[str, Any] | None:
    """The evaluation that is there, if any."""
    if not os.path.lexists(file):
        return None
    return unless_damaged(lambda: run.evaluation(file), "It is made again.")


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Of an evaluator, which may be a user's, and give them as tensors or NumPy's: as what a file holds."""
    return {name: value if type(value) is int else float(value) for name, value in metrics.items()}


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
    untrained = result.get("untrained", {})
    if untrained:
        table.add_column("untrained", justify="right")
    for name, value in result["metrics"].items():
        table.add_row(
            name, f"{value:.4g}", *([f"{untrained[name]:.4g}" if name in untrained else ""] * bool(untrained))
        )
    Console(markup=False).print(table)
    print(file, flush=True)
