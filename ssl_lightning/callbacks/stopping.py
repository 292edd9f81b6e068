"""Processes that train together stop together."""

import signal
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from ssl_lightning.lightning_internals import end_as_terminated, silence_sigterm_broadcast
from ssl_lightning.methods.method import SSLMethod


class StopTogether(L.Callback):
    """SIGTERM to any of several processes ends training in all of them after the same optimizer step, where they save;
    on GPUs after a step of which a row is logged. A process alone ends after the step, too, if it has several batches.

    Lightning's own handler starts a collective from within the signal, wherever each process happens to be, so that
    they wait for each other for ever, and it ends training after a batch. Its own way to tell all of them before each
    batch is switched off.
    """

    def __init__(self) -> None:
        self._asked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        if trainer.world_size > 1 or pl_module.batches_a_step > 1:
            signal.signal(signal.SIGTERM, self._ask)  # Lightning restores the former handler at the end of training
            silence_sigterm_broadcast(trainer)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SSLMethod)
        if pl_module.batches % pl_module.batches_a_step:
            return
        if trainer.world_size == 1:
            if self._asked:
                end_as_terminated(trainer)
            return
        device = trainer.strategy.root_device
        every = 1 if device.type == "cpu" else int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if pl_module.steps % every == 0:  # a GPU has to be waited for
            asked = torch.tensor(self._asked, dtype=torch.int32, device=device)
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            if asked:
                end_as_terminated(trainer)
