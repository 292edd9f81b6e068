"""Images/s of ssl-train, of a bare loop of the same network, and of views by themselves: for benchmarks.peers and
benchmarks.gpu.

The bare loop makes the same steps (forward, loss, backward, optimizer) in the same mode on constant views, without
data, augmentation, probe or logging. The first epoch, and as many steps of the bare loop, are left out.
"""

import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from hydra import compose

from ssl_lightning.config.components import make
from ssl_lightning.config.hydra import configs_in, quoted
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.views import Augment
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.backbones import crashes_in_channels_last
from ssl_lightning.pipeline.pretrain import pretrain
from ssl_lightning.ranges import Count

CPU = torch.device("cpu")
HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(kw_only=True)
class Noise(ImageDataset):
    """Random images in memory: so many of train, a fifth of that of test."""

    images: Count = 2560

    def prepare(self) -> None:
        pass

    def read(self, split: str) -> Any:
        number = self.images if split == "train" else self.images // 5
        images = np.random.default_rng(number).integers(0, 256, (number, 3, 32, 32), np.uint8)
        return images, np.arange(number) % 10

    def count_classes(self) -> int:
        return 10


def noise(images: int) -> list[str]:
    """Overrides that train on them, with the views of CIFAR-10."""
    return [
        "dataset=cifar10",
        "dataset._target_=benchmarks.training.Noise",
        "~dataset.root",
        f"+dataset.images={images}",
    ]


class Clock(L.Callback):
    """Writes when epochs began and training ended, each time with the work of the device done, and when its last
    checkpoint was written: seconds of `time.monotonic()`, which processes of a machine share, as JSON.

    Args:
        file: what is written at the end.
    """

    changes_training: ClassVar[bool] = False

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.epochs: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(now(trainer.strategy.root_device))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append(now(trainer.strategy.root_device))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.file.write_text(json.dumps({"epochs": self.epochs, "ended": time.monotonic()}))


def now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def clock(file: Path) -> list[str]:
    """Overrides that have a run write its times."""
    return ["+callbacks.clock._target_=benchmarks.training.Clock", f"+callbacks.clock.file={quoted(str(file))}"]


def settings(runs: str | Path, *overrides: str) -> dict[str, Any]:
    """The config of a run that says its times."""
    common = ["trainer.enable_progress_bar=false", f"paths.runs={quoted(str(runs))}", *clock(Path(runs) / "clock.json")]
    with configs_in(CONF):
        return resolve(compose("train", [*common, *overrides]))


def ssl_train(config: dict[str, Any], left_out: int = 1) -> dict[str, float]:
    """What a run costs, whose epochs are so many more than those that are left out.

    Args:
        left_out: first epochs, which choose algorithms and compile.
    """
    cost = pretrain(config).results()["cost"]
    times = json.loads(Path(config["callbacks"]["clock"]["file"]).read_text())["epochs"]
    epochs = [end - start for start, end in itertools.pairwise(times)]
    epoch = statistics.median(epochs[left_out:])
    return {
        "images_per_second": cost["images_seen"] / len(epochs) / epoch,
        "seconds_per_epoch": epoch,
        "first_epoch_seconds": epochs[0],
        "peak_gib": cost["peak_memory_bytes"] / 2**30,
    }


def bare(config: dict[str, Any], device: torch.device = CPU, steps: int = 20, windows: int = 3) -> float:
    """Images/s of the loop on constant views: the median of windows of so many steps, after one that is left out."""
    torch.set_float32_matmul_precision(config["float32_matmul"])
    method: SSLMethod = make(config["method"]).to(device)
    assert method.recipe is not None
    if config["channels_last"] and not (device.type == "cpu" and crashes_in_channels_last(method)):
        method.to(memory_format=torch.channels_last)
    method.compile_networks(config["compile"])
    optimizer, _ = method.recipe.build(method.parameter_groups(), steps, steps)
    augment: Augment = make(config["augment"])
    n, side = config["batch_size"], config["dataset"]["image_size"]
    views = torch.randn(augment.num_views, n, config["dataset"]["channels"], side, side, device=device)
    batch = Batch((views,), torch.zeros(n, dtype=torch.int64, device=device), torch.arange(n, device=device))
    half = HALF.get(config["trainer"]["precision"])
    scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)

    def step() -> None:
        if config["compile"]:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, half, enabled=half is not None):
            loss = method.ssl_loss(batch, LOCAL, Draw()).loss
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return n / seconds_of(step, device, steps, windows)


def views(config: dict[str, Any], device: torch.device = CPU, steps: int = 20, windows: int = 3) -> float:
    """Seconds that the views of a batch of noise take by themselves, of which a run may hide a part."""
    augment: Augment = make(config["augment"])
    augment.compiled = bool(config["compile"]) and device.type != "cpu"
    n, channels, side = (config["batch_size"], *(config["dataset"][key] for key in ("channels", "image_size")))
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8).to(device)
    mean, std = (torch.tensor(config["dataset"][key]).to(device) for key in ("mean", "std"))
    generator = torch.Generator().manual_seed(0)
    return seconds_of(lambda: augment(images, mean, std, generator), device, steps, windows)


def seconds_of(step: Callable[[], object], device: torch.device, steps: int, windows: int) -> float:
    """The median over windows of so many steps, after one that is left out."""
    times = []
    for _ in range(windows + 1):
        started = now(device)
        for _ in range(steps):
            step()
        times.append((now(device) - started) / steps)
    return statistics.median(times[1:])
