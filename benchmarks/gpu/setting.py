"""Where parts measure, and how much: on a GPU, or at a toy size on the CPU."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import benchmarks
from benchmarks.training import noise, settings
from ssl_lightning.config.hydra import quoted

ROOT = Path(benchmarks.__file__).parents[1]
"""Where the repository lies: processes start here, so that they find its packages."""
Figures = Mapping[str, float | str]


@dataclass(frozen=True)
class Setting:
    """
    Args:
        toy: on the CPU, and so small that figures are worth nothing.
        work: an empty folder, for runs and caches.
        folder: of images, train/<class>/* and test/<class>/*, 32×32 pixels each; by default they are noise.
    """

    toy: bool
    work: Path
    folder: Path | None = None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.toy else "cuda")

    @property
    def images(self) -> int:
        """Of noise, to train on."""
        return 320 if self.toy else 50_000

    @property
    def batch(self) -> int:
        return 64 if self.toy else 512

    @property
    def steps(self) -> int:
        """Of a window in which something is timed by itself."""
        return 2 if self.toy else 30

    def overrides(self, *more: str, folder: Path | None = None) -> list[str]:
        """Of a SimCLR run that evaluates ranks alone, and in what it differs from that.

        Args:
            folder: of other images than those of the setting.
        """
        folder = folder or self.folder
        return [
            *(in_folder(folder) if folder else noise(self.images)),
            f"trainer={'cpu' if self.toy else 'gpu'}",
            "++trainer.benchmark=true",
            f"backbone={'resnet_tiny' if self.toy else 'resnet18'}",
            "optimizer=sgd",
            "evaluation=none",
            f"batch_size={self.batch}",
            f"paths.cache={quoted(str(self.work / 'cache'))}",
            *more,
        ]

    def config(self, *more: str, folder: Path | None = None) -> dict[str, Any]:
        """Of a run: see `overrides`."""
        return settings(self.work, *self.overrides(*more, folder=folder))

    def command(self, *more: str) -> list[str]:
        """The same run as a process, to be started in `ROOT`."""
        common = [f"paths.runs={quoted(str(self.work))}", "trainer.enable_progress_bar=false"]
        return [sys.executable, "-m", "ssl_lightning.commands.train", *common, *self.overrides(*more)]


def in_folder(folder: Path) -> list[str]:
    """Overrides that train on the images of a folder, with the views of CIFAR-10."""
    root = f"dataset.root={quoted(str(folder))}"
    return ["dataset=image_folder", root, f"dataset.name={folder.name}", "augment=simclr_cifar"]


@dataclass(frozen=True)
class Part:
    """
    Args:
        table: in which its figures stand.
        measure: gives figures, some at a time: what it has given stays, whatever happens to it later. It raises where
            a figure is wrong.
        limit: seconds on a GPU after which it is ended.
        on_cpu: whether a CPU has what it measures.
    """

    name: str
    table: str
    measure: Callable[[Setting], Iterator[Figures]]
    limit: float = 90.0
    on_cpu: bool = True
