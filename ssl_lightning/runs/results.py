"""results.json: what a run has cost, where it was made, and its one-line summary."""

import math
import platform
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import torch

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import same_command
from ssl_lightning.runs.reading import stopped_early
from ssl_lightning.versions import version_of

PACKAGES = ("ssl-lightning", "torch", "torchvision", "lightning", "hydra-core")


def cost(
    train_seconds: float,
    waiting_seconds: float,
    images_seen: int,
    steps: int,
    gradient_evaluations: float,
    peak_memory: int,
    watching_seconds: float = 0.0,
) -> dict[str, Any]:
    """
    Args:
        train_seconds: of wall time, over all resumptions.
        waiting_seconds: what of these was spent waiting for batches; NaN where this is not known.
        steps: optimizer steps.
        gradient_evaluations: of a step, in passes of the whole batch through the encoder.
        peak_memory: bytes, of the first process in training.
        watching_seconds: what callbacks took that only watch, such as `callbacks=spectrum`; no part of the others.
    """
    return {
        "train_seconds": train_seconds,
        **({} if math.isnan(waiting_seconds) else {"waiting_seconds": waiting_seconds}),
        **({"watching_seconds": watching_seconds} if watching_seconds else {}),
        "images_seen": images_seen,
        "optimizer_steps": steps,
        "gradient_evaluations": gradient_evaluations * steps,
        "images_per_second": images_seen / max(train_seconds, 1e-9),
        "peak_memory_bytes": peak_memory,
    }


def cost_of_selecting(seconds: float, images_left_out: int) -> dict[str, Any]:
    """Of choosing images while training.

    Args:
        seconds: a part of `train_seconds`.
        images_left_out: how many more the epochs that have begun would have passed through, had they seen all.
    """
    return {"selecting_seconds": seconds, "images_left_out": images_left_out}


def environment(cuda: bool, world_size: int) -> dict[str, Any]:
    """Versions, device, threads, processes, and the commit of the working directory."""
    return {
        "versions": {name: version_of(name) for name in PACKAGES} | {"python": platform.python_version()},
        "device": device_name(cuda),
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "git": _git(),
    }


def device_name(cuda: bool) -> str:
    """Of what a process of this machine trains on."""
    return torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU"


def summary(results: Mapping[str, Any]) -> str:
    """One line: accuracies, or where there are none the rank of the representations; and the cost."""
    metrics = results["metrics"]
    shown = {"linear": ("linear/top1", "linear_sgd/top1"), "k-NN": ("knn/top1",)}
    words = [f"{word} {metrics[name]:.3f}" for word, names in shown.items() for name in names if name in metrics] or [
        f"RankMe {metrics['representation/rankme']:.1f}"
    ]
    words.append(f"trained in {results['cost']['train_seconds']:.1f} s")
    if watched := results["cost"].get("watching_seconds"):
        words.append(f"watched in {watched:.1f} s")
    if (left_out := results["cost"].get("images_left_out")) is not None:
        share = left_out / max(1, left_out + results["cost"]["images_seen"])
        words.append(f"left out {left_out:,} image passes ({share:.0%})")
    if stopped_early(results):
        steps, planned = results["cost"]["optimizer_steps"], results["planned_steps"]
        by = f" by {results['stopped_by']}" if results.get("stopped_by") else ""
        words.append(f"stopped{by} after {steps:,} of {planned:,} optimizer steps")
        words[-1] += "" if by else f": {same_command()} goes on"
    return "  ".join(words)


def costs(results: Mapping[str, Any]) -> dict[str, float]:
    """For loggers, by name."""
    return {f"cost/{name}": value for name, value in results["cost"].items()}


def _git() -> str | None:
    """Commit of the working directory, where it is a repository and git is installed."""
    if shutil.which("git") is None:
        return None
    found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def objective(results: Mapping[str, Any], name: str) -> float:
    """The metric that a search goes by.

    Raises:
        UserError: there is none of that name, or it is no finite number.
    """
    metrics = results["metrics"]
    if name not in metrics:
        raise UserError(f"objective={name} is no metric of {results['run']}. It has {', '.join(sorted(metrics))}.")
    if not math.isfinite(value := float(metrics[name])):
        raise UserError(f"objective={name} is {value} in {results['run']}, by which no search can go.")
    return value
