"""The last checkpoint, always whole, and the one before it."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.runs.run import CHECKPOINTS, PREVIOUS


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary name in the same folder and renames: a killed writer leaves the former checkpoint. Where
    there was one of a run, it stays as `previous.ckpt`, in case that a disk damages the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    _save(checkpoint, file)
                if path.exists() and path.parent.name == CHECKPOINTS:
                    _link(path, path.with_name(PREVIOUS))
        except UserError as error:
            raise UserError(f"{error} {_room(checkpoint, path.parent)}") from error


def _save(checkpoint: Any, file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:  # torch's writer complains of its position, and hides what the disk said
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _room(checkpoint: Any, folder: Path) -> str:
    """What a checkpoint needs, and what there is."""
    try:
        free = f", and {shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free there"
    except OSError:
        free = ""
    return f"The checkpoint takes {_bytes(checkpoint) / 2**20:,.1f} MiB{free}."


def _bytes(value: Any) -> int:
    """Of all tensors in mappings and lists."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def _link(file: Path, name: Path) -> None:
    """Gives a file a second name, which may be that of another file until then. At no moment is there none."""
    with replacing(name) as temporary:
        temporary.unlink()
        try:
            os.link(file, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(file, temporary)


class LastCheckpoint(L.Callback):
    """Saves `path` every so often, at the end, and when training is interrupted between two steps.

    The recorder flushes and checks the losses first, so a checkpoint never holds weights after a non-finite loss.
    What ends training, such as `max_time`, does so at the end of an optimizer step.

    Args:
        path: of the checkpoint.
        recorder: whose state a checkpoint must hold.
        every_minutes: looked at when the recorder flushes.
        every_steps: optimizer steps, None for never.
    """

    def __init__(self, path: Path, recorder: Recorder, every_minutes: float, every_steps: int | None) -> None:
        self.path = path
        self.recorder = recorder
        self.every_seconds = 60 * every_minutes
        self.every_steps = every_steps
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._in_step = False
        self._asked = False  # to stop

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        self._saved_at, self._saved_step = time.monotonic(), pl_module.steps

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._in_step = True

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SSLMethod)
        if pl_module.batches % pl_module.batches_a_step:  # gradients that are accumulated are in no checkpoint
            self._asked = self._asked or trainer.should_stop
            trainer.should_stop = False
            return
        trainer.should_stop, self._asked = self._asked or trainer.should_stop, False
        self._in_step = False
        step = pl_module.steps
        due = self.every_steps is not None and step % self.every_steps == 0
        if step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            late = time.monotonic() - self._saved_at >= self.every_seconds
            due = due or trainer.strategy.broadcast(late)
        if due or trainer.should_stop:  # now: at the end of training Lightning takes the epoch for a whole one
            self.save(trainer, step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        self.save(trainer, pl_module.steps)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        assert isinstance(pl_module, SSLMethod)
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and not self._in_step:
            self.save(trainer, pl_module.steps)

    def save(self, trainer: L.Trainer, step: int) -> None:
        """All processes together, between two steps.

        Args:
            step: how many optimizer steps there were.
        """
        if step != self._saved_step:
            self.recorder.check(trainer, weights=True)
            self.recorder.collect(trainer)
            trainer.save_checkpoint(self.path)
            self._saved_at, self._saved_step = time.monotonic(), step
