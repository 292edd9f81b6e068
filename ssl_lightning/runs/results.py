"""results.json: identity, mask, cost, environment."""

import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import lightning as L
import torch

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.config.identity import component_name
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.runs.run import Run


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


def costs(results: Mapping[str, Any]) -> dict[str, float]:
    return {f"cost/{name}": value for name, value in results["cost"].items()}
