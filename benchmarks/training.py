"""Training efficiency: images/s of ssl-train over images/s of a bare loop of the same network on constant tensors.

    python -m benchmarks.training

SimCLR with resnet_tiny on 32×32 colour images, on the CPU, both in one process and by turns. The bare loop makes the
same steps (forward, loss, backward, optimizer) on two constant views, without data, augmentation, probe or logging.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hydra import compose

from ssl_lightning.config.components import make
from ssl_lightning.config.hydra import configs_in
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.pipeline.pretrain import pretrain

IMAGES, BATCH, STEPS, TURNS = 2560, 256, 20, 3


@dataclass(kw_only=True)
class Noise(ImageDataset):
    """Random images in memory."""

    def prepare(self) -> None:
        pass

    def read(self, split: str) -> Any:
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (IMAGES if split == "train" else 100, 3, 32, 32), np.uint8)
        return images, np.arange(len(images)) % 10

    def count_classes(self) -> int:
        return 10


def settings(runs: str) -> dict[str, Any]:
    with configs_in(CONF):
        config = compose(
            "train",
            [
                "dataset=cifar10",
                "dataset._target_=benchmarks.training.Noise",
                "~dataset.root",
                "trainer=cpu",
                f"trainer.max_epochs={STEPS * BATCH // IMAGES}",
                "trainer.enable_progress_bar=false",
                f"batch_size={BATCH}",
                f"paths.runs={runs}",
            ],
        )
    return resolve(config)


def bare(config: dict[str, Any]) -> float:
    method: SSLMethod = make(config["method"])
    assert method.recipe is not None
    if config["channels_last"]:
        method.to(memory_format=torch.channels_last)
    optimizer, _ = method.recipe.build(method.parameter_groups(), STEPS, STEPS)
    views = torch.randn(2, BATCH, 3, 32, 32)
    batch = Batch((views,), torch.zeros(BATCH, dtype=torch.int64), torch.arange(BATCH))
    started = time.perf_counter()
    for _ in range(STEPS):
        loss = method.ssl_loss(batch, LOCAL, Draw()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return STEPS * BATCH / (time.perf_counter() - started)


def main() -> None:
    ours, theirs = [], []
    for _ in range(TURNS):
        with tempfile.TemporaryDirectory() as runs:
            config = settings(runs)
            theirs.append(bare(config))
            ours.append(pretrain(config).results()["cost"]["images_per_second"])
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(f"threads: {torch.get_num_threads()}, {TURNS} turns, batch {BATCH}, {STEPS} steps")
    print(f"ssl-train: {statistics.median(ours):.0f} images/s, bare loop: {statistics.median(theirs):.0f} images/s")
    print(f"efficiency: {statistics.median(ratios):.3f} ({', '.join(f'{r:.3f}' for r in ratios)})")


if __name__ == "__main__":
    main()
