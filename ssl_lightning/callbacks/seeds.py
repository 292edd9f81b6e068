"""Seeds of the global generators."""

from typing import Any

import lightning as L
import torch

from ssl_lightning.data.sampler import seed_of


class StepSeeds(L.Callback):
    """Reseeds the global generators before each step, as a function of (seed, step, rank), so that dropout and the
    like need no stored generator state to resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        torch.manual_seed(seed_of("step", self.seed, trainer.global_step, trainer.global_rank))
