"""Training that is asked to stop finishes its step, in all processes together."""

import os
import signal
import threading
from enum import IntEnum
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.callbacks.checkpoint import LastCheckpoint
from ssl_lightning.launchers.job import in_slurm, requeue_signal
from ssl_lightning.lightning_internals import silence_sigterm_broadcast
from ssl_lightning.methods.method import SSLMethod


def stopped_by(trainer: L.Trainer) -> str:
    """Name of the callback that has found training to be good enough, if one has."""
    early = [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
    return next((type(callback).__name__ for callback in early if callback.stopped_epoch), "")


class Requeued(SystemExit):
    """All is saved, and SLURM may start this job again."""


class Asked(IntEnum):
    """What a signal asks for. Of several, in one process or another, the last of these is done by all."""

    NOTHING = 0
    SAVE = 1
    REQUEUE = 2
    END = 3
    INTERRUPT = 4


class StopTogether(L.Callback):
    """SIGINT (Ctrl-C) or SIGTERM to any process ends training in all of them after the same optimizer step, where they
    save; on several GPUs after a step of which a row is logged. A second SIGINT ends its process at once.

    In a job of SLURM's, SIGTERM says that SLURM is going to end it: all processes save, and go on until then. Ending
    before would be taken for an end of the job, where SLURM means to start it again after a preemption. And before a
    time limit, where submitit has started the job, all save and end training; submitit's own handler of that signal
    comes after (`launchers.job.start_again`).

    It is the last of the callbacks: what it raises finds the step complete. Lightning would break off in the middle of
    a step at SIGINT; and its handler of SIGTERM starts a broadcast wherever each process happens to be, so that they
    would wait for each other without end. Its own broadcast before each batch is switched off.
    """

    def __init__(self) -> None:
        self._asked: list[Asked] = []  # appended to by signals, at any time
        self._meaning: dict[int, Asked] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        silence_sigterm_broadcast(trainer)
        self._meaning = {signal.SIGINT: Asked.INTERRUPT, signal.SIGTERM: Asked.SAVE if in_slurm() else Asked.END}
        if (number := requeue_signal()) is not None:
            self._meaning[number] = Asked.REQUEUE
        if threading.current_thread() is threading.main_thread():  # no other may set handlers, nor gets signals
            for number in self._meaning:
                signal.signal(number, self._ask)  # Lightning restores the former ones at the end of training
        self._speaks = trainer.is_global_zero
        if stopped_by(trainer):  # before, and for good: else each repetition of the command would train an epoch more
            trainer.should_stop = True

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._speaks and number == signal.SIGINT:  # not by print, which may be interrupted by itself
            os.write(2, b"\nFinishing the step and saving. Ctrl-C again stops at once.\n")
        self._asked.append(self._meaning[number])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, SSLMethod)
        if pl_module.batches % pl_module.batches_a_step:
            return
        seen = len(self._asked)
        asked = max(self._asked[:seen], default=Asked.NOTHING)
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            every = 1 if device.type == "cpu" else int(trainer.log_every_n_steps)  # type: ignore[attr-defined]
            if pl_module.steps % every:  # a GPU has to be waited for
                return
            of_all = torch.tensor(asked, dtype=torch.int32, device=device)
            dist.all_reduce(of_all, dist.ReduceOp.MAX)
            asked = Asked(int(of_all))
        if asked == Asked.INTERRUPT:
            raise KeyboardInterrupt
        if asked == Asked.END:
            raise SIGTERMException
        del self._asked[:seen]
        if asked != Asked.NOTHING:
            _save(trainer, pl_module.steps)
        if asked == Asked.REQUEUE:
            raise Requeued(0)


def _save(trainer: L.Trainer, step: int) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LastCheckpoint):
            callback.save(trainer, step)
    if trainer.is_global_zero:
        print(f"SLURM is going to end this job: step {step} is saved.", flush=True)
