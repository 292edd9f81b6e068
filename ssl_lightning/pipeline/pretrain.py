"""The way through a run, top to bottom."""

import shutil
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback

from ssl_lightning.callbacks.budget import EqualSteps
from ssl_lightning.callbacks.checkpoint import LastCheckpoint
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.seeds import StepSeeds
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import component_name
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.views import Augment
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.suite import Evaluation, EvaluationSuite
from ssl_lightning.lightning_internals import add_callbacks
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.loggers.of_run import log_results, run_loggers
from ssl_lightning.loggers.wandb import ended_by_errors
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import crashes_in_channels_last
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.trainer import _trainer
from ssl_lightning.processes import ProcessGroup, quiet
from ssl_lightning.reports.figures import run_figures
from ssl_lightning.runs.results import _results, _summary
from ssl_lightning.runs.run import Run, run_of
from ssl_lightning.subsets.rule import SubsetRule


def complete(config: dict[str, Any], alone: bool = False) -> Run:
    """Brings the run of a resolved config to its end, from wherever it is. Returns its folder.

    Args:
        alone: this process works for itself, even where it belongs to a group that others have started.
    """
    quiet()
    dataset: ImageDataset = make(config["dataset"])
    subset: SubsetRule = make(config["subset"], _convert_="object")
    suite: EvaluationSuite = make(config["evaluation"])
    trainer = _trainer(config, alone)
    run = run_of(
        config,
        {
            "data": dataset.content_digest(),
            "subset": subset.content_digest(),
            "accelerator": type(trainer.accelerator).__name__,
            "processes": trainer.world_size,
        },
    )
    if run.done and run.results()["evaluation"] == config["evaluation"]:
        if not alone and trainer.is_global_zero:  # a proxy is looked up again and again
            print(f"{run.id} is finished: {_summary(run.results())}", flush=True)
        return run
    rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]
    if rehearsal:
        _fit(config, run, dataset, subset.rehearsal(), trainer)
        if trainer.is_global_zero:
            print("fast_dev_run: one step was made and nothing was kept.", flush=True)
        return run
    if not trainer.is_global_zero:
        method, _, _ = _fit(config, run, dataset, subset, trainer)
        _look(config, method, dataset, suite, run, trainer)
        return run
    with run.locked(config), ended_by_errors():
        print(f"{run.id} {'resumes' if run.checkpoint.exists() else 'starts'}", flush=True)
        method, data, recorder = _fit(config, run, dataset, subset, trainer)
        results = _results(config, run, data, trainer, recorder)
        trained, untrained = _look(config, method, dataset, suite, run, trainer)
        device = trainer.strategy.root_device
        metrics, spectra = _evaluate(suite, *trained, dataset, method, device)
        results |= {"metrics": metrics, "spectra": spectra}
        if untrained is not None:
            results["untrained"], _ = _evaluate(suite, *untrained, dataset, method, device)
        if run.done:  # only the evaluation was missing: keep what training had cost, and the former metrics
            former = run.results()
            made = {key: former.get(key, {}) | results[key] for key in ("metrics", "untrained") if key in results}
            results = former | made | {"evaluation": config["evaluation"]}
        figures = run_figures(run, results)
        run.finish(results)
        shutil.rmtree(run.folder / "features", ignore_errors=True)
        log_results(trainer.loggers, config, results, figures)
        print(f"{run.id} {_summary(results)}", flush=True)
    return run


def _fit(
    config: dict[str, Any], run: Run, dataset: ImageDataset, subset: SubsetRule, trainer: L.Trainer
) -> tuple[SSLMethod, SubsetDataModule, Recorder]:
    """Trains from the last checkpoint, or from the start, to the end of the budget."""
    rehearsal: bool = trainer.fast_dev_run  # type: ignore[attr-defined]
    if not rehearsal:  # first: what a logger lacks is said before the work begins
        trainer.loggers = [MetricsFile(run.metrics_file), *run_loggers(config, run)]
    L.seed_everything(config["seed"], verbose=False)
    method: SSLMethod = make(config["method"])
    if method.classifies:
        dataset.prepare()
        dataset.all_labels(f"method={component_name(config['method'])}")
    views: Augment = make(config["augment"], _convert_="object")  # else each View would be a DictConfig
    data = SubsetDataModule(dataset, subset, views, config["batch_size"], config["seed"])
    data.prepare_data()  # before the trainer starts further processes, which would wait for a ranking only so long
    if config["channels_last"] and not (
        isinstance(trainer.accelerator, CPUAccelerator) and crashes_in_channels_last(method)
    ):
        method.to(memory_format=torch.channels_last)
    if config["compile"]:
        method.compile_backbone()
    torch.set_float32_matmul_precision(config["float32_matmul"])
    recorder = Recorder()
    callbacks: list[Callback] = [
        StepSeeds(config["seed"]),
        StopTogether(),
        *make(config["callbacks"]).values(),
        recorder,
    ]
    callbacks.append(LastCheckpoint(run.checkpoint, recorder, **config["checkpoint"]))
    if config["budget"] == "steps":
        callbacks.append(EqualSteps(config["batch_size"]))
    add_callbacks(trainer, callbacks)
    resume = run.checkpoint if run.checkpoint.exists() and not rehearsal else None
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except SystemExit as exit:
        if type(exit) is SystemExit and trainer.interrupted:  # Lightning's answer to SIGINT
            raise KeyboardInterrupt from None
        raise
    return method, data, recorder


def _look(
    config: Mapping[str, Any],
    method: SSLMethod,
    dataset: ImageDataset,
    suite: EvaluationSuite,
    run: Run,
    trainer: L.Trainer,
) -> tuple[tuple[Features, Features], tuple[Features, Features] | None]:
    """What the frozen encoder, and where it is asked for the untrained one, make of the full labelled splits. All
    processes look at their share of the images."""
    device = trainer.strategy.root_device
    processes = ProcessGroup(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)

    def features(method: SSLMethod, kind: str) -> tuple[Features, Features]:
        encoder = Encoder(method, dataset.mean, dataset.std, method.project).to(device)
        # Files, where processes meet or where features may be larger than memory.
        folder = run.folder / "features" / kind if processes.size > 1 or suite.linear == "sgd" else None
        train = extract(encoder.features, dataset.labelled(), processes, folder and folder / "train")
        return train, extract(encoder.features, dataset.test(), processes, folder and folder / "test")

    trained = features(method, "trained")
    if not suite.untrained:
        return trained, None
    L.seed_everything(config["seed"], verbose=False)
    return trained, features(make(config["method"]), "untrained")


def _evaluate(
    suite: EvaluationSuite,
    train: Features,
    test: Features,
    dataset: ImageDataset,
    method: SSLMethod,
    device: torch.device,
) -> Evaluation:
    """The suite; of a classifier, also its own accuracy, with the labels that training saw."""
    evaluation = suite(train, test, dataset.validation_part(), int(dataset.num_classes or 0), device)
    if method.classifies:
        correct = (test.embeddings.argmax(1) == test.labels).sum()
        evaluation.metrics["classifier/top1"] = int(correct) / len(test.labels)
    return evaluation
