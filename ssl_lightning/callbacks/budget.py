"""Equal optimizer steps for every fraction of a dataset."""

import lightning as L

from ssl_lightning.lightning_internals import limit_steps


class EqualSteps(L.Callback):
    """Trains for as many optimizer steps as `max_epochs` passes over the full training split would take.

    Args:
        batch_size: images per optimizer step.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        full = len(trainer.datamodule.dataset.train().labels)  # type: ignore[attr-defined]
        if trainer.max_epochs is not None and trainer.max_epochs != -1:
            steps = trainer.max_epochs * (full // self.batch_size)
            if trainer.max_steps != -1:
                steps = min(steps, trainer.max_steps)
            limit_steps(trainer, steps)
