"""Leaves in the run's folder how far training is, for `ssl-sweep --status`."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.runs.progress import Progress, write_progress

EVERY = 10.0
"""Seconds between two notes, from the fifth on: a second, and then twice as long each time."""


class Heartbeat(L.Callback):
    """The first process writes `progress.json` when training begins, about every `EVERY` seconds, and when it ends. It
    asks the device for nothing.

    Args:
        file: to write.
        recorder: knows steps, images and seconds.
    """

    changes_training = False

    def __init__(self, file: Path, recorder: Recorder) -> None:
        self.file = file
        self._recorder = recorder
        self._last = 0.0, 0, 0  # when it was written, at which step, after how many images
        self._wait = 1.0
        self._speed = math.nan, math.nan  # images a second, seconds a step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.monotonic(), _steps(pl_module), self._recorder.images_seen
        self._write(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        began, step, images = self._last
        if now - began >= self._wait and (steps := _steps(pl_module) - step) > 0:
            self._speed = (self._recorder.images_seen - images) / (now - began), (now - began) / steps
            self._wait = min(2 * self._wait, EVERY)
            self._last = now, step + steps, self._recorder.images_seen
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, method: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
        epoch = trainer.current_epoch + 1
        write_progress(
            self.file,
            Progress(
                step=_steps(method),
                planned_steps=self._recorder.planned_steps,
                epoch=min(epoch, epochs) if epochs > 0 else epoch,
                epochs=epochs,
                images_per_second=self._speed[0],
                seconds_per_step=self._speed[1],
                train_seconds=self._recorder.train_seconds,
                time=time.time(),
            ),
        )


def _steps(method: L.LightningModule) -> int:
    assert isinstance(method, SSLMethod)
    return method.steps
