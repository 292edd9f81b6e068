"""Runs of the former version (schema 1), whose configs do not say what they are and what in them is irrelevant."""

import re
from collections.abc import Mapping
from typing import Any

_PLACES = ("root", "cache", "download", "storage", "resident_gib", "workers")

IGNORED = (
    "sweep",
    "debug",
    "paths",
    "logger",
    "checkpoint",
    "evaluation",
    "callbacks.online_probe",
    *(f"dataset.{key}" for key in _PLACES),
    "subset.cache",
    "subset.accelerator",
    "subset.memory_gib",
    *(f"subset.proxy.dataset.{key}" for key in _PLACES),
    *(f"subset.proxy.{key}" for key in ("paths", "evaluation", "checkpoint")),
    *(f"subset.proxy.{key}" for key in ("accelerator", "enable_progress_bar", "fast_dev_run")),
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.strategy",
    "trainer.default_root_dir",
)
SEEDS = ("seed", "subset.seed", "subset.proxy.seed")

_MOVED = {
    "data.datasets.Digits": "data.sources.digits.Digits",
    "data.datasets.FashionMNIST": "data.sources.fashion_mnist.FashionMNIST",
    "data.datasets.CIFAR10": "data.sources.cifar.CIFAR10",
    "data.datasets.CIFAR100": "data.sources.cifar.CIFAR100",
    "data.image_folder.ImageFolder": "data.sources.image_folder.ImageFolder",
    "data.stl10.STL10": "data.sources.stl10.STL10",
    "data.tiny_imagenet.TinyImageNet": "data.sources.tiny_imagenet.TinyImageNet",
    "data.views.Views": "data.views.Augment",
    "callbacks.forgetting.ForgettingEvents": "subsets.forgetting.ForgettingEvents",
    "subsets.difficulty.Forgetting": "subsets.forgetting.Forgetting",
}


def moved(value: Any) -> Any:
    """A config of schema 1 whose components are named as they are now."""
    if isinstance(value, Mapping):
        return {key: _target(item) if key == "_target_" else moved(item) for key, item in value.items()}
    return [moved(item) for item in value] if isinstance(value, list) else value


def _target(name: str) -> str:
    package, _, rest = name.partition(".")
    return f"{package}.{_MOVED[rest]}" if package == "ssl_lightning" and rest in _MOVED else name


def identity_of_folder(name: str) -> dict[str, Any]:
    """What the name of an unfinished run's folder says of it; nothing, where it is of another form."""
    form = r"(?P<method>.+)-(?P<dataset>\w+)-(?P<subset>\w+)-(?P<fraction>all|[\d.]+(?:e-\d+)?)-s(?P<seed>\d+)-\w+"
    if not (found := re.fullmatch(form, name)):
        return {}
    values = found.groupdict()
    fraction = None if values["fraction"] == "all" else float(values["fraction"])
    return values | {"fraction": fraction, "seed": int(values["seed"])}
