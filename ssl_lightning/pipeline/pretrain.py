"""The way through a run, top to bottom."""

import os
import shutil
from dataclasses import replace
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.selecting import Selecting
from ssl_lightning.callbacks.stopping import Requeued, stopped_by
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import component_name
from ssl_lightning.data.batches import check_batches
from ssl_lightning.data.datamodule import SubsetDataModule, check_views
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.resolution import Resolution
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import start_again
from ssl_lightning.launchers.journal import tell_run, tell_seconds
from ssl_lightning.lightning_internals import add_callbacks
from ssl_lightning.loggers.guard import has_failed
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.loggers.of_run import introduce, log_results, offline
from ssl_lightning.loggers.wandb import ended_by_errors, forget_service
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import crashes_in_channels_last
from ssl_lightning.pipeline.artifacts import artifacts_of
from ssl_lightning.pipeline.extension import beginning
from ssl_lightning.pipeline.finished import bring_up_to_date, figures_of, results_of
from ssl_lightning.pipeline.launch import as_first, quiet
from ssl_lightning.pipeline.measuring import features_of_encoders, measured
from ssl_lightning.pipeline.parts import Parts, of_labels, parts_of
from ssl_lightning.pipeline.profiling import name_profile, profiled
from ssl_lightning.pipeline.rehearsal import rehearsed
from ssl_lightning.pipeline.sync import mark_uploaded
from ssl_lightning.pipeline.trainer import callbacks_of
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.runs.initial import start_from
from ssl_lightning.runs.loading import load_run, resumable
from ssl_lightning.runs.results import cost, cost_of_selecting, environment, summary
from ssl_lightning.runs.run import SCHEMA, Run


class _Fitted(NamedTuple):
    """The method; what it was trained on, and the seconds of selecting that; what has recorded the training; and what
    has chosen images in it."""

    method: SSLMethod
    mask: Mask
    selection: dict[str, float]
    recorder: Recorder
    selecting: Selecting | None


def pretrain(config: dict[str, Any], alone: bool = False) -> Run:
    """Brings the run of a resolved config to its end, from wherever it is. Returns its folder.

    Args:
        alone: this process works for itself, even where it belongs to a group that others have started.
    """
    quiet()
    parts = parts_of(config, train_proxy, alone)
    run, first = parts.run, parts.trainer.is_global_zero
    if parts.rehearsal:
        _rehearse(config, parts, evaluates=not alone)
        return run
    if first and not alone:
        tell_run(run.folder)
    if config.get("force") and not os.environ.get("SLURM_RESTART_COUNT"):  # else it began with this job
        if first and run.folder.exists():
            print(f"force=true: what {run.folder} held is now in {run.set_aside()}", flush=True)
    elif run.settled and (former := results_of(run, first)) is not None:
        if first:
            bring_up_to_date(config, parts, former, quiet=alone)
        return run
    try:
        _train_and_evaluate(config, parts)
    except Requeued:
        forget_service()  # SLURM may end it first
        start_again()
    finally:
        if first and not alone:
            tell_seconds()
    return run


def _train_and_evaluate(config: dict[str, Any], parts: Parts) -> None:
    run, trainer = parts.run, parts.trainer
    if not trainer.is_global_zero:  # trains and makes features with the first process, which does the rest
        method, *_ = _fit(config, parts)
        features_of_encoders(config, parts, method, _group(trainer), trainer.strategy.root_device)
        return
    for dataset in (parts.dataset, parts.evaluated):  # while there is no run yet: without data there is nothing to do
        dataset.prepare()
    with run.locked(parts.identity, config), ended_by_errors():
        # Another process may have finished it while this one waited.
        finished = run.settled and not parts.rehearsal and results_of(run, speaks=False) is not None
        if not finished:
            _work(config, parts)
    if finished:
        pretrain({**config, "force": False})


def _work(config: dict[str, Any], parts: Parts) -> None:
    """What the first process does, which holds the run."""
    run, trainer = parts.run, parts.trainer
    method, mask, selection, recorder, selecting = _fit(config, parts)
    device = trainer.strategy.root_device
    cuda = device.type == "cuda"
    evaluation = measured(config, parts, method, _group(trainer), device)
    results = {
        "schema": SCHEMA,
        "run": run.id,
        "identity": _identity(parts, mask),
        "mask": {"size": mask.size, "digest": mask.digest, "rule": mask.rule, **_ranking(parts)},
        "planned_steps": recorder.planned_steps if recorder.planned_steps > 0 else trainer.estimated_stepping_batches,
        **({"stopped_by": name} if (name := stopped_by(trainer)) else {}),
        "cost": cost(
            recorder.train_seconds,
            recorder.waiting_seconds,
            recorder.images_seen,
            method.steps,
            method.gradient_evaluations,
            recorder.peak_memory,
            recorder.watching_seconds,
        )
        | (cost_of_selecting(selecting.seconds, selecting.images_left_out) if selecting else {})
        | selection
        | evaluation.pop("cost"),
        "environment": environment(cuda, trainer.world_size),
    } | evaluation
    run.finish(results)
    shutil.rmtree(run.folder / "features", ignore_errors=True)
    artifacts = None if parts.rehearsal else artifacts_of(run, config, results, trusted=None)
    taken = log_results(trainer.loggers, config, results, figures_of(parts, results), artifacts)
    if not parts.rehearsal:
        mark_uploaded(run, taken)
        if artifacts is not None and taken:
            shutil.rmtree(artifacts.encoder, ignore_errors=True)  # which the server has
    if not parts.rehearsal:
        print(f"{run.id} {summary(results)}", flush=True)
        name_profile(trainer, run)


def _rehearse(config: dict[str, Any], parts: Parts, evaluates: bool) -> None:
    """One step and all that comes after it, of which nothing is kept.

    Args:
        evaluates: not only trains, as a proxy does.
    """
    first = parts.trainer.is_global_zero
    with rehearsed(parts.run, first) as run:
        parts = replace(parts, run=run)
        if not evaluates:
            _fit(config, parts)
            return
        _train_and_evaluate(config, parts)
        if first:
            if failed := [type(logger).__name__ for logger in parts.trainer.loggers if has_failed(logger)]:
                raise UserError(f"{', '.join(failed)} failed, which a run would go on without: see the warning above.")
            load_run(run.folder, trusted=None)
            steps = run.results()["cost"]["optimizer_steps"]
            print(
                f"fast_dev_run: {steps} optimizer step{'s' * (steps > 1)}, a checkpoint, the evaluation of a few "
                "images, figures and loggers went well. Nothing was kept.",
                flush=True,
            )


def train_proxy(config: dict[str, Any]) -> Run:
    """A run that a ranking needs, in this process."""
    with as_first():
        return pretrain(config, alone=True)


def _fit(config: dict[str, Any], parts: Parts) -> _Fitted:
    """Trains from the last checkpoint, or from the start, to the end of the budget."""
    run, trainer, dataset = parts.run, parts.trainer, parts.dataset
    # First: what a logger lacks is said before the work begins.
    loggers: list[Logger] = [make(options) for options in config["logger"].values()]
    if parts.rehearsal:
        loggers = offline(loggers, run)
    introduce(loggers, run, parts.identity, config["sweep"], config)
    trainer.loggers = [MetricsFile(run.metrics_file), *loggers]
    L.seed_everything(config["seed"], verbose=False)
    method: SSLMethod = make(config["method"])
    method.made_of = config["method"]
    if config.get("init") is not None:
        start_from(method, config["init"])
    if config["compile"] and config.get("resolution"):
        raise UserError(
            f"compile is {config['compile']}, but resolution changes the size of views during training, and each size "
            "would be compiled anew. Choose compile=null, or resolution=full."
        )
    selecting = Selecting(make(config["selection"]), config["seed"]) if config.get("selection") else None
    if selecting is not None:
        selecting.check(method, config["trainer"].get("limit_train_batches"))
    method.compile_networks(config["compile"])
    dataset.prepare()
    if method.classifies:
        dataset.all_labels(f"method={component_name(config['method'])}")
    for notice in filter(None, (dataset.notice(), dataset.nuisance_notice())):
        rank_zero_only(print)(notice, flush=True)
    if parts.evaluation != config["evaluation"]:
        rank_zero_only(print)(of_labels(dataset), flush=True)
    parts.suite.check(parts.evaluated)
    augment: Augment = make(config["augment"])
    # On a CPU, operators on subsets of the images are faster than compiled ones on all.
    augment.compiled = bool(config["compile"]) and trainer.strategy.root_device.type != "cpu"
    resolution: Resolution | None = make(config["resolution"]) if config.get("resolution") else None
    size = parts.subset.size(len(dataset.train().labels))
    shares = trainer.world_size, int(trainer.accumulate_grad_batches)
    check_batches(config["batch_size"], shares, method, size, parts.identity.subset)
    check_views(augment, dataset, resolution)
    if not parts.rehearsal:
        rank_zero_only(print)(f"{run.id} {'resumes' if run.checkpoint.exists() else 'starts'}", flush=True)
    # Before the trainer starts further processes, which would wait for a ranking only so long.
    mask, selection = mask_of(parts)
    if not parts.rehearsal:
        _look_at_files(parts, mask)
    data = SubsetDataModule(
        dataset, mask, augment=augment, batch_size=config["batch_size"], seed=config["seed"], resolution=resolution
    )
    if config["channels_last"] and not (
        isinstance(trainer.accelerator, CPUAccelerator) and crashes_in_channels_last(method)
    ):
        method.to(memory_format=torch.channels_last)
    torch.set_float32_matmul_precision(config["float32_matmul"])
    start = resumable(run)
    if start is None and config.get("extend"):
        start = beginning(config, parts, method)
    recorder = Recorder()
    add_callbacks(trainer, callbacks_of(config, run, recorder, selecting))
    try:
        with profiled(trainer, run, named=not parts.rehearsal):
            trainer.fit(method, data, ckpt_path=start, weights_only=True)
        method.compile_networks(None)  # features have batches of other sizes
    except SystemExit as exit:
        if type(exit) is SystemExit and trainer.interrupted:  # Lightning's answer to SIGINT
            raise KeyboardInterrupt from None
        raise
    finally:
        data.teardown()  # which Lightning leaves out where training fails
    return _Fitted(method, mask, selection, recorder, selecting)


def _look_at_files(parts: Parts, mask: Mask) -> None:
    """What is decoded only after training is looked at before: an image that cannot be read is named now."""
    if parts.suite.needs_labels:
        parts.evaluated.check_images("test")
        if parts.evaluated.has_val:
            parts.evaluated.check_images("val")
    if parts.evaluated is not parts.dataset or mask.size < len(parts.dataset.train().labels):
        parts.evaluated.check_images("train")


def mask_of(parts: Parts) -> tuple[Mask, dict[str, float]]:
    """Which images pretraining sees; ranks them, and trains what they are ranked with, where that is missing. Beside
    it, what that has cost, now or once."""
    rule, proxies = parts.subset.rank, parts.proxies
    ranking = rule.ranking(
        parts.dataset, [proxy.digest for proxy in proxies], lambda: [proxy.load() for proxy in proxies]
    )
    if notice := parts.subset.notice(ranking):
        rank_zero_only(print)(notice, flush=True)
    return parts.subset.cut(ranking), ranking.cost


def _group(trainer: L.Trainer) -> ProcessGroup:
    return ProcessGroup(trainer.global_rank, trainer.world_size, trainer.strategy.barrier, trainer.strategy.broadcast)


def _ranking(parts: Parts) -> dict[str, str]:
    """The name of the file that holds it, where one does."""
    file = parts.subset.rank.ranking_file(parts.dataset, [proxy.digest for proxy in parts.proxies])
    return {} if file is None else {"ranking": file.name}


def _identity(parts: Parts, mask: Mask) -> dict[str, Any]:
    identity = {name: getattr(parts.identity, name) for name in ("method", "dataset", "subset", "seed", "budget")}
    return identity | {"fraction": mask.fraction}
