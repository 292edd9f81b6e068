"""Seeds of the global generators."""

from typing import Any

import lightning as L

from ssl_lightning.data.sampler import seed_of
from ssl_lightning.devices import seed_generators
from ssl_lightning.methods.method import SSLMethod


class StepSeeds(L.Callback):
    """Reseeds the global generators before each step, as a function of (seed, step, rank), so that dropout and the
    like need no stored generator state to resume."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SSLMethod)
        seed_generators(seed_of("step", self.seed, pl_module.batches, trainer.global_rank), pl_module.device)
