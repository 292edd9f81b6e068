"""One line of progress."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from rich.console import Console
from rich.progress import BarColumn

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.methods.method import SSLMethod


def can_be_seen() -> bool:
    """Whether standard output is a terminal or a notebook: a bar in a log would be lines of torn parts."""
    console = Console()
    return console.is_terminal or console.is_jupyter


class Progress(RichProgressBar):
    """Lightning's bar. Beside it stand, from the last row of metrics.csv, the loss, the online probe's accuracy and
    what is logged with `prog_bar=True`, and images a second since the row before: for the values of each step, the host
    would have to wait for the device."""

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """Without batches a second, which images a second say better, and with a short bar, for what stands beside."""
        columns = [c for c in super().configure_columns(trainer) if not isinstance(c, ProcessingSpeedColumn)]
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 20
        return columns

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        assert isinstance(pl_module, SSLMethod)
        recorder = next(callback for callback in trainer.callbacks if isinstance(callback, Recorder))  # type: ignore[attr-defined]
        row = recorder.row
        speed = {"images/s": f"{recorder.images_per_second:,.0f}"} if row else {}
        return speed | {name: f"{row[name]:.3f}" for name in sorted(pl_module.in_bar) if name in row}
