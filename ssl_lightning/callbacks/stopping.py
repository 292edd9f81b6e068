"""Training that is asked to stop finishes its step, in all processes together."""

import os
import signal
import threading
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.lightning_internals import silence_sigterm_broadcast
from ssl_lightning.methods.method import SSLMethod


def stopped_by(trainer: L.Trainer) -> str:
    """Name of the callback that has found training to be good enough, if one has."""
    early = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    return next((type(callback).__name__ for callback in early if callback.stopped_epoch), "")


class StopTogether(L.Callback):
    """SIGINT (Ctrl-C) or SIGTERM to any process ends training in all of them after the same optimizer step, where they
    save; on several GPUs after a step of which a row is logged. A second SIGINT ends its process at once.

    It is the last of the callbacks: what it raises finds the step complete. Lightning would break off in the middle of
    a step at SIGINT; and its handler of SIGTERM starts a broadcast wherever each process happens to be, so that they
    would wait for each other without end. Its own broadcast before each batch is switched off.
    """

    def __init__(self) -> None:
        self._asked = 0  # number of the signal

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        silence_sigterm_broadcast(trainer)
        if threading.current_thread() is threading.main_thread():  # no other may set handlers, nor gets signals
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask)  # Lightning restores the former ones at the end of training
        self._speaks = trainer.is_global_zero
        if stopped_by(trainer):  # before, and for good: else each repetition of the command would train an epoch more
            trainer.should_stop = True

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._speaks and number == signal.SIGINT:  # not by print, which may be interrupted by itself
            os.write(2, b"\nFinishing the step and saving. Ctrl-C again stops at once.\n")
        self._asked = number

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SSLMethod)
        if pl_module.batches % pl_module.batches_a_step:
            return
        asked = self._asked
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            every = 1 if device.type == "cpu" else int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
            if pl_module.steps % every:  # a GPU has to be waited for
                return
            of_all = torch.tensor(asked, dtype=torch.int32, device=device)
            dist.all_reduce(of_all, dist.ReduceOp.MAX)
            asked = int(of_all)
        if asked == signal.SIGINT:
            raise KeyboardInterrupt
        if asked:
            raise SIGTERMException
