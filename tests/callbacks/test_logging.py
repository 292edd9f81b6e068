"""What is logged with Lightning's own `self.log` becomes a part of the rows, and keeps nothing waiting."""

from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from torchmetrics import MeanMetric

from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.errors import UserError
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.methods.logged import COLUMNS
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
    assert float(shown.pop("images/s").replace(",", "")) > 0
    assert shown == {"batch": "5.500", "loss": f"{recorder.row['loss']:.3f}"}


def test_a_metric_object_is_refused():
    class Counting(Talkative):
        def training_step(self, batch, batch_idx):
            outputs = super().training_step(batch, batch_idx)
            self.log("mean", MeanMetric())
            return outputs

    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    with pytest.raises(UserError, match=r"self\.log\('mean', \.\.\.\) was given a MeanMetric\. Log one number"):
        fit(Recorder(), trained=Counting(resnet_tiny(width=4, channels=1), linear, optimizer=recipe))


class Saying(Talkative):
    """Logs something in a hook."""

    def __init__(self, *args, hook="training_step", name="mine", value=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.saying = hook, name, value

    def say(self, hook):
        if self.saying[0] == hook:
            self.log(*self.saying[1:])

    def on_train_start(self):
        self.say("on_train_start")

    def on_train_batch_start(self, batch, batch_idx):
        self.say("on_train_batch_start")

    def training_step(self, batch, batch_idx):
        self.say("training_step")
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer):
        self.say("on_before_optimizer_step")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.say("on_train_batch_end")

    def on_train_epoch_end(self):
        self.say("on_train_epoch_end")


def saying(**options):
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    return Saying(resnet_tiny(width=4, channels=1), linear, optimizer=recipe, **options)


HOOKS = (
    *("on_train_start", "on_train_batch_start", "training_step", "on_before_optimizer_step"),
    *("on_train_batch_end", "on_train_epoch_end"),
)


@pytest.mark.parametrize("hook", HOOKS)
def test_nothing_that_is_logged_is_lost(tmp_path, hook):
    file = tmp_path / "metrics.csv"
    fit(Recorder(), trained=saying(hook=hook), logger=MetricsFile(file))
    rows = read_metrics(file)
    values = [float(row["mine"]) for row in rows if row["mine"]]
    assert values
    assert set(values) == {1.0}
    if hook == "on_train_epoch_end":  # after the last step, too
        assert rows[-1]["mine"] == "1.0"


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "value",
    [2, 2.0, True, np.float32(2), np.float64(2), np.int64(2), torch.tensor(2), torch.tensor([2.0]), torch.tensor(True)],
    ids=str,
)
def test_one_number_of_any_kind_is_logged(tmp_path, value, recwarn):
    file = tmp_path / "metrics.csv"
    fit(Recorder(), trained=saying(value=value), logger=MetricsFile(file))
    assert {float(row["mine"]) for row in read_metrics(file)} == {float(value)}
    assert not [one for one in recwarn if "self.log" in str(one.message) or "batch_size" in str(one.message)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": torch.tensor([1.0, 2.0])}, r"self\.log\('mine', \.\.\.\) was given a tensor of 2\. Log one number"),
        ({"value": "word"}, r"self\.log\('mine', \.\.\.\) was given a str"),
        *(({"name": name}, rf"self\.log\('{name}', \.\.\.\): {name} is a column") for name in COLUMNS),
    ],
)
def test_what_cannot_be_a_column_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        fit(Recorder(), trained=saying(**options))


def _rows_of_ranks(rank):
    """Of two recorders whose ranks log different things."""
    recorder = Recorder()
    trainer = SimpleNamespace(
        world_size=2,
        is_global_zero=rank == 0,
        loggers=[],
        current_epoch=0,
        strategy=SimpleNamespace(root_device=torch.device("cpu"), reduce=_reduce),
        lightning_module=talkative(),
        callback_metrics={},
    )
    trainer.lightning_module.trainer = SimpleNamespace(accumulate_grad_batches=1)
    recorder._add({"both": (torch.tensor(float(rank)), torch.tensor(1.0))})
    if rank == 0:
        recorder._add({"first": (torch.tensor(3.0), torch.tensor(1.0))})
    else:
        recorder._add({"a": (torch.tensor(5.0), torch.tensor(1.0))})
    recorder._flush(trainer)
    return recorder.row


def _reduce(tensor, reduce_op):
    dist.all_reduce(tensor, dist.ReduceOp.MAX if reduce_op == "max" else dist.ReduceOp.SUM)
    return tensor


@pytest.mark.nightly
def test_ranks_may_log_different_things(pair):
    for row in pair(_rows_of_ranks):
        assert {name: row[name] for name in ("a", "both", "first")} == {"a": 5.0, "both": 0.5, "first": 3.0}


class Greedy(L.Callback):
    """Holds some memory for one step."""

    def __init__(self, mebibytes):
        self.bytes = mebibytes * 2**20

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.ones(self.bytes, dtype=torch.uint8)


@pytest.mark.nightly
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
