"""The way through a run, top to bottom."""

import logging
import platform
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from ssl_lightning.callbacks.budget import EqualSteps
from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.metrics_file import MetricsFile
from ssl_lightning.callbacks.online_probe import StepSeeds
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.configuration import component_name
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.datasets import ImageDataset
from ssl_lightning.data.views import Views
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.suite import Evaluation, EvaluationSuite
from ssl_lightning.loggers import ended_by_errors, log_results, run_loggers
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import crashes_in_channels_last
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.reports.figures import run_figures
from ssl_lightning.runs import Run, run_of
from ssl_lightning.subsets.mask import SubsetRule
from ssl_lightning.team import Team


def complete(config: dict[str, Any], alone: bool = False) -> Run:
    """Brings the run of a resolved config to its end, from wherever it is. Returns its folder.

    Args:
        alone: this process works for itself, even where it belongs to a group that others have started.
    """
    quiet()
    dataset: ImageDataset = instantiate(config["dataset"])
    subset: SubsetRule = instantiate(config["subset"], _convert_="object")
    suite: EvaluationSuite = instantiate(config["evaluation"])
    trainer = _trainer(config, alone)
    run = run_of(
        config,
        {
            "data": dataset.content_key(),
            "subset": subset.content_key(),
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
    with run.claimed(config), ended_by_errors():
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
    method: SSLMethod = instantiate(config["method"])
    if method.classifies:
        dataset.prepare()
        dataset.all_labels(f"method={component_name(config['method'])}")
    views: Views = instantiate(config["augment"], _convert_="object")  # else each View would be a DictConfig
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
        *instantiate(config["callbacks"]).values(),
        recorder,
    ]
    callbacks.append(LastCheckpoint(run.checkpoint, recorder, **config["checkpoint"]))
    if config["budget"] == "steps":
        callbacks.append(EqualSteps(config["batch_size"]))
    trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    resume = run.checkpoint if run.checkpoint.exists() and not rehearsal else None
    try:
        trainer.fit(method, data, ckpt_path=resume, weights_only=True)
    except SystemExit as exit:
        if type(exit) is SystemExit and trainer.interrupted:  # Lightning's answer to SIGINT
            raise KeyboardInterrupt from None
        raise
    return method, data, recorder


def _trainer(config: Mapping[str, Any], alone: bool) -> L.Trainer:
    options = config["trainer"]
    if options.get("accumulate_grad_batches", 1) != 1:
        raise UserError(
            "trainer.accumulate_grad_batches must be 1: accumulation changes the negatives of contrastive losses. "
            "Use a larger batch_size, or more processes."
        )
    if options.get("log_every_n_steps", 1) < 1:
        raise UserError("trainer.log_every_n_steps must be at least 1: the steps that a row of metrics.csv spans.")
    trainer: L.Trainer = instantiate(
        options,
        logger=False,
        callbacks=[Progress()] if options.get("enable_progress_bar", True) else [],
        plugins=[AtomicCheckpointIO(), *_environment(alone)],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    refuse_in_multirun(trainer.world_size)
    return trainer


def _environment(alone: bool) -> list[ClusterEnvironment]:
    """Where Lightning's own choice of what started the processes is not ours."""
    if alone:
        return [LightningEnvironment()]
    if SLURMEnvironment.detect():  # it would resume from checkpoints of its own, outside of the run's folder
        return [SLURMEnvironment(auto_requeue=False)]
    return []


def refuse_in_multirun(processes: int) -> None:
    """A multirun calls its jobs in one process, which cannot start others for each of them; SLURM can."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if processes == 1 or SLURMEnvironment.detect():
        return
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            f"trainer.devices asks for {processes} processes a job, which a multirun in one process cannot "
            "start. Run each job as a command of its own: add hydra/launcher=pool. Or use trainer=auto."
        )


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
    team = Team(trainer.global_rank, trainer.world_size, trainer.strategy.barrier)

    def features(method: SSLMethod, kind: str) -> tuple[Features, Features]:
        encoder = Encoder(method, dataset.mean, dataset.std, method.project).to(device)
        # Files, where processes meet or where features may be larger than memory.
        folder = run.folder / "features" / kind if team.size > 1 or suite.linear == "sgd" else None
        train = extract(encoder.features, dataset.labelled(), team, folder and folder / "train")
        return train, extract(encoder.features, dataset.test(), team, folder and folder / "test")

    trained = features(method, "trained")
    if not suite.untrained:
        return trained, None
    L.seed_everything(config["seed"], verbose=False)
    return trained, features(instantiate(config["method"]), "untrained")


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


def _results(
    config: Mapping[str, Any], run: Run, data: SubsetDataModule, trainer: L.Trainer, recorder: Recorder
) -> dict[str, Any]:
    assert data.mask is not None
    method = trainer.lightning_module
    assert isinstance(method, SSLMethod)
    cuda = trainer.strategy.root_device.type == "cuda"
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    )
    return {
        "schema": 1,
        "run": run.id,
        "identity": {
            "method": component_name(config["method"]),
            "dataset": config["dataset"]["name"],
            "subset": data.mask.rule,
            "fraction": data.mask.fraction,
            "seed": config["seed"],
            "budget": config["budget"],
        },
        "mask": {"size": data.mask.size, "hash": data.mask.hash, "rule": data.mask.rule},
        "cost": {
            "train_seconds": recorder.train_seconds,
            "images_seen": recorder.images_seen,
            "optimizer_steps": trainer.global_step,
            "gradient_evaluations": method.gradient_evaluations * trainer.global_step,
            "images_per_second": recorder.images_seen / max(recorder.train_seconds, 1e-9),
            "peak_memory_bytes": peak,
        },
        "environment": {
            "versions": {
                name: version(name) for name in ("ssl-lightning", "torch", "torchvision", "lightning", "hydra-core")
            }
            | {"python": platform.python_version()},
            "device": torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU",
            "threads": torch.get_num_threads(),
            "world_size": trainer.world_size,
            "git": _git(),
        },
        "evaluation": config["evaluation"],
    }


def _summary(results: Mapping[str, Any]) -> str:
    metrics = results["metrics"]
    seconds = results["cost"]["train_seconds"]
    linear = metrics.get("linear/top1", metrics.get("linear_sgd/top1"))
    return f"linear {linear:.3f}  k-NN {metrics['knn/top1']:.3f}  trained in {seconds:.1f} s"


def _git() -> str | None:
    """Commit of the working directory, where it is a repository and git is installed."""
    if shutil.which("git") is None:
        return None
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def quiet() -> None:
    """Only warnings that a user can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
    warnings.filterwarnings("ignore", ".*`srun` command is available.*")  # a job of a pool is no task of SLURM's
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")  # the recorder logs at the end too
