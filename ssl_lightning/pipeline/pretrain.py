"""The way through a run, top to bottom."""

import contextlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import component_name
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError, warn
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.protocol import protocol_in, same
from ssl_lightning.evaluation.suite import Evaluation
from ssl_lightning.files import write_json
from ssl_lightning.lightning_internals import add_callbacks
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.loggers.of_run import introduce, log_results
from ssl_lightning.loggers.wandb import ended_by_errors
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import crashes_in_channels_last
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.parts import Parts, parts_of
from ssl_lightning.pipeline.trainer import callbacks_of
from ssl_lightning.processes import ALONE, ProcessGroup, as_first, quiet, share_buffers, solving_device
from ssl_lightning.reports.figures import run_figures
from ssl_lightning.runs.loading import load_run, resumable
from ssl_lightning.runs.results import cost, environment, summary
from ssl_lightning.runs.run import SCHEMA, Run

Both = tuple[Features, Features]
"""Of the labelled images of train, and of test."""


def pretrain(config: dict[str, Any], alone: bool = False) -> Run:
    """Brings the run of a resolved config to its end, from wherever it is. Returns its folder.

    Args:
        alone: this process works for itself, even where it belongs to a group that others have started.
    """
    quiet()
    parts = parts_of(config, train_proxy, alone)
    run, trainer = parts.run, parts.trainer
    if run.done and (former := _results_of(run, trainer.is_global_zero)) is not None:
        if trainer.is_global_zero:
            _bring_up_to_date(config, parts, former, quiet=alone)
        return run
    if config["trainer"]["fast_dev_run"]:
        _fit(config, parts)
        if trainer.is_global_zero:
            print("fast_dev_run: one step was made and nothing was kept.", flush=True)
        return run
    if not trainer.is_global_zero:  # trains and makes features with the first process, which does the rest
        method, _, _ = _fit(config, parts)
        _features_of_encoders(config, parts, method, _group(trainer), trainer.strategy.root_device)
        return run
    with run.locked(parts.identity, config), ended_by_errors():
        print(f"{run.id} {'resumes' if run.checkpoint.exists() else 'starts'}", flush=True)
        method, data, recorder = _fit(config, parts)
        device = trainer.strategy.root_device
        cuda = device.type == "cuda"
        results = {
            "schema": SCHEMA,
            "run": run.id,
            "identity": _identity(parts, data.mask),
            "mask": {"size": data.mask.size, "digest": data.mask.digest, "rule": data.mask.rule},
            "cost": cost(
                recorder.train_seconds,
                recorder.images_seen,
                method.steps,
                method.gradient_evaluations,
                recorder.peak_memory,
            ),
            "environment": environment(cuda, trainer.world_size),
        } | _evaluated(config, parts, method, _group(trainer), device)
        _finish(run, results)
        log_results(trainer.loggers, config, results, _figures(run, results))
        print(f"{run.id} {summary(results)}", flush=True)
    return run


def train_proxy(config: dict[str, Any]) -> Run:
    """A run that a ranking needs, in this process."""
    with as_first():
        return pretrain(config, alone=True)


def _results_of(run: Run, speaks: bool) -> dict[str, Any] | None:
    """Of a finished run; None where they cannot be read, and are made again from its checkpoint."""
    try:
        return run.results()
    except UserError as error:
        if speaks:
            what = str(error).rpartition(". Delete")[0]
            print(f"Warning: {what}. It is made again from the checkpoint.", file=sys.stderr, flush=True)
        return None


def _bring_up_to_date(config: dict[str, Any], parts: Parts, results: dict[str, Any], quiet: bool) -> None:
    """Evaluates a finished run further, where another protocol is asked for than it was evaluated under, and keeps that
    beside its results. It takes the checkpoint and the evaluation's dataset, nothing else."""
    run = parts.run
    kept = [results, *run.evaluations()]
    former = next((made for made in kept if same(protocol_in(made), parts.protocol)), None)
    if former is not None and ("untrained" in former or not parts.suite.untrained):
        _draw_what_is_missing(run, results)
        if not quiet:  # a proxy is looked up again and again
            print(f"{run.id} is finished: {_summary(results, former, parts)}", flush=True)
        return
    with run.held():
        parts.suite.check(parts.evaluated)
        device = parts.trainer.strategy.root_device
        made = _evaluated(config, parts, load_run(run.folder, trusted=None).method, ALONE, device)
        if former is results:
            run.finish(results | {"untrained": made["untrained"]})
        else:
            name = f"{parts.protocol.dataset}-{parts.protocol.digest}"
            write_json(run.evaluation_file(name), {"schema": SCHEMA, "run": run.id, **made})
        shutil.rmtree(run.folder / "features", ignore_errors=True)
        print(f"{run.id} {_summary(results, made, parts)}", flush=True)


def _summary(results: Mapping[str, Any], made: Mapping[str, Any], parts: Parts) -> str:
    """Of an evaluation; of one that is not the run's own, with its protocol."""
    name = "" if made is results else f"({parts.protocol.name(parts.dataset.name)}) "
    return name + summary({**results, "metrics": made["metrics"]})


def _finish(run: Run, results: dict[str, Any]) -> None:
    """Results first: nothing that is drawn or logged afterwards can cost them."""
    run.finish(results)
    shutil.rmtree(run.folder / "features", ignore_errors=True)


def _figures(run: Run, results: dict[str, Any]) -> dict[str, Path]:
    """None, and a line that says why, where they cannot be drawn."""
    try:
        return run_figures(run, results)
    except Exception as error:
        warn(f"drawing the figures of {run.id}", error)
        return {}


def _draw_what_is_missing(run: Run, results: dict[str, Any]) -> None:
    """A process that was killed while it drew has left no figures, or a part of one."""
    if any(run.folder.glob("figures/*.png")) and not any(run.folder.glob("figures/.*.part")):
        return
    with contextlib.suppress(OSError, UserError), run.held():  # others may be at it, or the folder be only readable
        _figures(run, results)


def _fit(config: dict[str, Any], parts: Parts) -> tuple[SSLMethod, SubsetDataModule, Recorder]:
    """Trains from the last checkpoint, or from the start, to the end of the budget."""
    run, trainer, dataset = parts.run, parts.trainer, parts.dataset
    fast_dev_run = bool(config["trainer"]["fast_dev_run"])
    if not fast_dev_run:  # first: what a logger lacks is said before the work begins
        loggers: list[Logger] = [make(options) for options in config["logger"].values()]
        introduce(loggers, run, parts.identity, config["sweep"], config)
        trainer.loggers = [MetricsFile(run.metrics_file), *loggers]
    L.seed_everything(config["seed"], verbose=False)
    method: SSLMethod = make(config["method"])
    dataset.prepare()
    if method.classifies:
        dataset.all_labels(f"method={component_name(config['method'])}")
    if notice := dataset.notice():
        rank_zero_only(print)(notice, flush=True)
    parts.suite.check(parts.evaluated)
    mask = mask_of(parts)  # before the trainer starts further processes, which would wait for a ranking only so long
    augment: Augment = make(config["augment"])
    data = SubsetDataModule(dataset, mask, augment, config["batch_size"], config["seed"])
    if config["channels_last"] and not (
        isinstance(trainer.accelerator, CPUAccelerator) and crashes_in_channels_last(method)
    ):
        method.to(memory_format=torch.channels_last)
    if config["compile"]:
        method.compile_backbone()
    torch.set_float32_matmul_precision(config["float32_matmul"])
    recorder = Recorder()
    add_callbacks(trainer, callbacks_of(config, run, recorder))
    resume = None if fast_dev_run else resumable(run)
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except SystemExit as exit:
        if type(exit) is SystemExit and trainer.interrupted:  # Lightning's answer to SIGINT
            raise KeyboardInterrupt from None
        raise
    return method, data, recorder


def mask_of(parts: Parts) -> Mask:
    """Which images pretraining sees; ranks them, and trains what they are ranked with, where that is missing."""
    rule, proxies = parts.subset.rank, parts.proxies
    ranking = rule.ranking(
        parts.dataset, [proxy.digest for proxy in proxies], lambda: [proxy.load() for proxy in proxies]
    )
    if notice := parts.subset.notice(ranking):
        rank_zero_only(print)(notice, flush=True)
    return parts.subset.cut(ranking)


def _group(trainer: L.Trainer) -> ProcessGroup:
    return ProcessGroup(trainer.global_rank, trainer.world_size, trainer.strategy.barrier, trainer.strategy.broadcast)


def _evaluated(
    config: dict[str, Any], parts: Parts, method: SSLMethod, processes: ProcessGroup, device: torch.device
) -> dict[str, Any]:
    """What the frozen encoder, and where it is asked for the untrained one, is worth."""
    trained, untrained = _features_of_encoders(config, parts, method, processes, device)
    metrics, spectra = _evaluate(parts, method, *trained, device)
    results: dict[str, Any] = {
        "protocol": parts.protocol.as_dict(),
        "metrics": metrics,
        "spectra": spectra,
        "evaluation": config["evaluation"],
    }
    if untrained is not None:
        results["untrained"], _ = _evaluate(parts, method, *untrained, device)
    return results


def _features_of_encoders(
    config: dict[str, Any], parts: Parts, method: SSLMethod, processes: ProcessGroup, device: torch.device
) -> tuple[Both, Both | None]:
    """Features of the full labelled splits. All processes look at their share of the images."""
    pretrained, dataset, suite = parts.dataset, parts.evaluated, parts.suite
    share_buffers(method, processes)

    def features(method: SSLMethod, kind: str) -> Both:
        encoder = Encoder(method, pretrained.mean, pretrained.std, method.project).to(device)
        # Files, where processes meet or where features may be larger than memory.
        folder = parts.run.folder / "features" / kind if processes.size > 1 or suite.in_files else None
        train = dataset.labelled() if suite.needs_labels else dataset.train()
        made = extract(encoder.features, train, processes, folder and folder / "train")
        if not suite.needs_labels:
            return made, made
        return made, extract(encoder.features, dataset.test(), processes, folder and folder / "test")

    trained = features(method, "trained")
    if not suite.untrained:
        return trained, None
    L.seed_everything(config["seed"], verbose=False)
    return trained, features(make(config["method"]), "untrained")


def _evaluate(parts: Parts, method: SSLMethod, train: Features, test: Features, device: torch.device) -> Evaluation:
    """The suite; of a classifier of this dataset, also its own accuracy, with the labels that training saw."""
    dataset = parts.evaluated
    solving = solving_device(device)
    evaluation = parts.suite(train, test, dataset.validation_part(), int(dataset.num_classes or 0), solving)
    if method.classifies and dataset is parts.dataset and parts.suite.needs_labels:
        evaluation.metrics["classifier/top1"] = classifier_accuracy(test)
    return evaluation


def classifier_accuracy(test: Features) -> float:
    """Of a classifier whose logits are its embeddings."""
    return int((test.embeddings.argmax(1) == test.labels).sum()) / len(test.labels)


def _identity(parts: Parts, mask: Mask) -> dict[str, Any]:
    identity = {name: getattr(parts.identity, name) for name in ("method", "dataset", "subset", "seed", "budget")}
    return identity | {"subset": mask.rule, "fraction": mask.fraction}
