"""Images a second of ssl-train, of the same training written for lightly, and of a bare loop.

SimCLR with resnet_tiny on images of 32×32 in memory, on the CPU. lightly's side follows its documented example: a
LightningModule with its transform, its projection head and its loss, and a DataLoader of two workers. Backbone, sizes,
optimizer and batch are those of ssl-train. The bare loop is that of benchmarks.training: the same steps on two constant
views. Seconds of the others are those between the hooks `on_train_start` and `on_train_end`.
"""

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra import compose
from torch import Tensor, nn

from benchmarks.peers.figures import Figures, Options, Row, contest, installed
from benchmarks.peers.images import Array, images_of, loader
from benchmarks.peers.views import lightly_transform
from benchmarks.training import bare
from ssl_lightning.config.components import make
from ssl_lightning.config.hydra import configs_in
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.pipeline.pretrain import pretrain

EPOCHS = 2


@dataclass(kw_only=True)
class Given(ImageDataset):
    """Images of an array in a file."""

    file: str

    def prepare(self) -> None:
        pass

    def read(self, split: str) -> Any:
        images = np.load(self.file)
        images = images if split == "train" else images[:50]
        return images, np.arange(len(images)) % 10

    def count_classes(self) -> int:
        return 10


def settings(file: Path, runs: str, batch_size: int) -> dict[str, Any]:
    """Of ssl-train as it is, but that nothing is evaluated, and of lightly's side."""
    with configs_in(CONF):
        config = compose(
            "train",
            [
                "dataset=cifar10",
                "dataset._target_=benchmarks.peers.training.Given",
                f"+dataset.file={file}",
                "~dataset.root",
                "~dataset.download",
                "evaluation=none",
                "trainer=cpu",
                f"trainer.max_epochs={EPOCHS}",
                "trainer.enable_progress_bar=false",
                f"batch_size={batch_size}",
                f"paths.runs={runs}",
            ],
        )
    return resolve(config)


def ours(config: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stdout(io.StringIO()):
        run = pretrain({**config, "paths": {**config["paths"], "runs": runs}})
        return run.results()["cost"]["images_per_second"]


class Stopwatch(L.Callback):
    """Seconds of training, between the hooks that ssl-train's cost is counted between."""

    seconds = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = time.monotonic() - self.started


class ForLightly(L.LightningModule):
    """SimCLR from lightly's parts: a pass a view."""

    def __init__(self, method: SimCLR, length: int, lr: float, weight_decay: float) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead  # type: ignore[import-not-found]

        super().__init__()
        self.backbone: nn.Module = method.backbone
        self.head = SimCLRProjectionHead(length, length, 128)
        self.contrast = NTXentLoss(temperature=method.temperature)
        self.lr, self.weight_decay = lr, weight_decay

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        first, second = (self.head(self.backbone(view)) for view in batch[0])
        loss = self.contrast(first, second)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


def lightly(config: dict[str, Any], images: Array, channels_last: bool) -> float:
    method: SimCLR = make(config["method"])
    recipe = config["optimizer"]
    module = ForLightly(method, method.backbone.num_features, recipe["lr"], recipe["weight_decay"])
    if channels_last:
        module.to(memory_format=torch.channels_last)
    batches = loader(images, lightly_transform(0.0), config["batch_size"])
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=EPOCHS, callbacks=[watch], default_root_dir=folder,
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=10,
        )  # fmt: skip
        trainer.fit(module, batches)
    return trainer.global_step * config["batch_size"] / watch.seconds


def rows(options: Options) -> Iterator[Row]:
    count, batch_size = (64, 32) if options.small else (2560, 256)

    def rate(images_per_second: float) -> Figures:
        return {"images/s": images_per_second}

    def ways(config: dict[str, Any], images: Array) -> dict[str, Callable[[], Figures]]:
        peers = {
            "lightly": lambda: rate(lightly(config, images, channels_last=False)),
            "lightly, channels_last": lambda: rate(lightly(config, images, channels_last=True)),
        }
        return {
            "ours": lambda: rate(ours(config)),
            **(peers if peer else {}),
            "bare loop": lambda: rate(bare(config)),
        }

    peer = installed("lightly")
    for kind, images in images_of(options, count).items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "images.npy"
            np.save(file, images)
            yield from contest(kind, ways(settings(file, folder, batch_size), images), options.turns)
