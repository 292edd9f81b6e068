"""Equal optimizer steps for every fraction of a dataset, or equal compute for every method."""

from typing import Literal

import lightning as L

from ssl_lightning.lightning_internals import limit_steps
from ssl_lightning.methods.method import SSLMethod


class Budget(L.Callback):
    """Trains for another number of optimizer steps than `max_epochs` passes over the subset take: `steps`, as many as
    those passes over the full training split would; `compute`, so many that gradient evaluations of images
    (`SSLMethod.gradient_evaluations`) are those of a method that needs one a step, as SimCLR does.

    `trainer.max_steps` ends it earlier: by `compute`, that many steps of such a method.

    Args:
        batch_size: images per optimizer step.
    """

    def __init__(self, kind: Literal["steps", "compute"], batch_size: int) -> None:
        self.kind = kind
        self.batch_size = batch_size

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, SSLMethod)
        data = trainer.datamodule  # type: ignore[attr-defined]
        images = len(data.dataset.train().labels) if self.kind == "steps" else data.mask.size
        limits = [] if trainer.max_steps == -1 else [trainer.max_steps]
        if trainer.max_epochs not in (None, -1):
            limits.append(trainer.max_epochs * (images // self.batch_size))
        if limits:
            share = pl_module.gradient_evaluations if self.kind == "compute" else 1.0
            limit_steps(trainer, max(1, round(min(limits) / share)))
