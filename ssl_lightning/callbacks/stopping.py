"""Processes that train together stop together."""

import signal
from typing import Any

import lightning as L
import torch
import torch.distributed as dist


class StopTogether(L.Callback):
    """SIGTERM to any of several processes ends training in all of them after the same step, where they save.

    Lightning's own handler starts a collective from within the signal, wherever each process happens to be, so that
    they wait for each other for ever.
    """

    def __init__(self) -> None:
        self._asked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._ask)  # Lightning restores the former handler at the end of training

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.world_size > 1:
            asked = torch.tensor(self._asked, dtype=torch.int32, device=trainer.strategy.root_device)
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            if asked:
                trainer._signal_connector.received_sigterm = True
