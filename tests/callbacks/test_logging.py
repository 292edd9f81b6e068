"""What is logged with Lightning's own `self.log` becomes a part of the rows, and keeps nothing waiting."""

import lightning as L
import pytest
import torch
from torchmetrics import MeanMetric

from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.errors import UserError
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import linear
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.runs.metrics import read_metrics
from tests.callbacks.fitting import fit, method


class Talkative(SimCLR):
    """Logs the number of each batch, from 1."""

    def training_step(self, batch, batch_idx):
        outputs = super().training_step(batch, batch_idx)
        self.log("batch", torch.tensor(float(self.batches)), prog_bar=True, on_epoch=True, logger=True)
        self.log_dict({"twice": 2 * self.batches})
        return outputs


class Watching(L.Callback):
    """Logs, too, and sees what others would watch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("seen", pl_module.batches + 0.5)
        self.seen.append(float(trainer.callback_metrics["twice"]))


def talkative():
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    return Talkative(resnet_tiny(width=4, channels=1), linear, optimizer=recipe)


def test_what_is_logged_is_averaged_in_the_rows_and_makes_none(tmp_path):
    file, watching, recorder = tmp_path / "metrics.csv", Watching(), Recorder()
    trained = talkative()
    fitted = fit(watching, recorder, trained=trained, logger=MetricsFile(file), log_every_n_steps=4)
    rows = read_metrics(file)
    assert [row["step"] for row in rows] == ["4", "6"]  # of six
    assert [float(row["batch"]) for row in rows] == [2.5, 5.5]
    assert [float(row["twice"]) for row in rows] == [5.0, 11.0]
    assert [float(row["seen"]) for row in rows] == [3.0, 6.0]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert watching.seen == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    shown = Progress().get_metrics(fitted, trained)
    assert shown == {"batch": "5.500", "loss": f"{recorder.row['loss']:.3f}"}


def test_a_metric_object_is_refused():
    class Counting(Talkative):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            self.log("mean", MeanMetric())
            return outputs

    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    with pytest.raises(UserError, match=r"Counting logs 'mean' as a MeanMetric\. Log a number"):
        fit(Recorder(), trained=Counting(resnet_tiny(width=4, channels=1), linear, optimizer=recipe))


class Greedy(L.Callback):
    """Holds some memory for one step."""

    def __init__(self, mebibytes):
        self.bytes = mebibytes * 2**20

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.ones(self.bytes, dtype=torch.uint8)


def test_memory_of_a_training_is_its_own():
    """A sweep trains in one process; a later job needs less than the one before."""
    large, small = Recorder(), Recorder()
    fit(Greedy(512), large, trained=method())
    fit(Greedy(1), small, trained=method())
    assert large.peak_memory - small.peak_memory > 400 * 2**20
    resumed = Recorder()
    resumed.load_state_dict(large.state_dict())
    fit(resumed, trained=method())
    assert resumed.peak_memory == large.peak_memory
