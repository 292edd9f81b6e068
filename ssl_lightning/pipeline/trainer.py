"""The trainer of a run."""

from collections.abc import Mapping
from typing import Any

import lightning as L

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.config.components import make
from ssl_lightning.errors import UserError
from ssl_lightning.processes import _environment, refuse_in_multirun


def _trainer(config: Mapping[str, Any], alone: bool) -> L.Trainer:
    options = config["trainer"]
    if options.get("accumulate_grad_batches", 1) != 1:
        raise UserError(
            "trainer.accumulate_grad_batches must be 1: accumulation changes the negatives of contrastive losses. "
            "Use a larger batch_size, or more processes."
        )
    if options.get("log_every_n_steps", 1) < 1:
        raise UserError("trainer.log_every_n_steps must be at least 1: the steps that a row of metrics.csv spans.")
    trainer: L.Trainer = make(
        options,
        logger=False,
        callbacks=[Progress()] if options.get("enable_progress_bar", True) else [],
        plugins=[AtomicCheckpointIO(), *_environment(alone)],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    refuse_in_multirun(trainer.world_size)
    return trainer
