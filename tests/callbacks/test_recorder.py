"""Rows are means over intervals, whatever the ranks, the checkpoints and the counts; bad losses are named."""

import copy
from types import SimpleNamespace
from unittest.mock import Mock

import lightning as L
import pytest
import torch

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.loading import Loader
from ssl_lightning.errors import UserError
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.optim.clock import Clock


class Rows:
    """A logger that keeps rows by step, and forgets as metrics.csv does."""

    def __init__(self):
        self.rows = {}

    def log_metrics(self, metrics, step):
        self.rows[step] = metrics

    def rewind(self, step):
        self.rows = {s: row for s, row in self.rows.items() if s <= step}


class Module(SSLMethod):
    batches_a_step = 1

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def ssl_loss(self, batch, gather, draw):
        raise NotImplementedError


class Training:
    """What a recorder sees of a training, step by step."""

    def __init__(self, recorder, steps=10**6, every=3, rank=0, world_size=1, reduce=lambda x, reduce_op: x):
        self.recorder = recorder
        self.module = Module()
        self.module.clock = Clock(steps, steps)
        group = {"lr": 1.0}
        self.logger = Rows()
        self.trainer = Mock(
            spec=L.Trainer,
            current_epoch=0,
            log_every_n_steps=every,
            world_size=world_size,
            is_global_zero=rank == 0,
            global_rank=rank,
            loggers=[self.logger],
            optimizers=[SimpleNamespace(param_groups=[group])],
            strategy=SimpleNamespace(reduce=reduce, root_device=torch.device("cpu")),
            lightning_module=self.module,
            is_last_batch=False,
            callback_metrics={},
            train_dataloader=Mock(spec=Loader, waited=0.0),
        )

    def start(self):
        self.recorder.on_train_start(self.trainer, self.module)
        return self

    def step(self, loss, scalars=None, averages=None, images=4, waits=0.25):
        self.trainer.train_dataloader.waited += waits
        batch = Batch((), torch.zeros(images), torch.arange(images))
        self.trainer.optimizers[0].param_groups[0]["lr"] = 1 / (1 + self.module.steps)
        self.recorder.on_train_batch_start(self.trainer, self.module, batch, 0)
        self.module.batches += 1
        self.trainer.optimizers[0].param_groups[0]["lr"] = -1.0  # the scheduler has been stepped already
        values = {name: torch.tensor(value) for name, value in (scalars or {}).items()}
        outputs = {"objective": Objective(torch.tensor(loss), torch.empty(0), torch.empty(0), values)}
        if averages:
            outputs["averages"] = {n: (torch.tensor(s), torch.tensor(c)) for n, (s, c) in averages.items()}
        self.recorder.on_train_batch_end(self.trainer, self.module, outputs, batch, 0)

    def end(self):
        self.recorder.on_train_end(self.trainer, self.module)

    @property
    def rows(self):
        return self.logger.rows


def test_rows_are_means_over_intervals():
    training = Training(Recorder()).start()
    for loss in (1.0, 2.0, 6.0, 5.0, 5.0, 2.0, 7.0):
        training.step(loss, {"base_loss": 2 * loss})
    assert {step: (row["loss"], row["base_loss"]) for step, row in training.rows.items()} == {3: (3, 6), 6: (4, 8)}
    assert training.rows[3]["lr"] == 1 / 3  # that with which step 3 was made
    training.end()
    assert training.rows[7]["loss"] == 7


def test_the_last_step_makes_a_row():
    training = Training(Recorder(), steps=4).start()
    for loss in (1.0, 2.0, 6.0, 5.0):
        training.step(loss)
    assert training.rows[4]["loss"] == 5
    training.end()
    assert sorted(training.rows) == [3, 4]


def test_averages_are_weighted_by_their_counts():
    training = Training(Recorder()).start()
    training.step(1.0, averages={"top1": (3, 4), "seldom": (0, 0)})
    training.step(1.0, averages={"top1": (0, 0), "seldom": (0, 0)})
    training.step(1.0, averages={"top1": (2, 16), "seldom": (0, 0)})
    assert training.rows[3]["top1"] == 5 / 20
    assert "seldom" not in training.rows[3]  # nothing was counted: no mean, and no division by zero
    training.step(1.0)
    training.step(1.0, averages={"seldom": (1, 2)})
    training.step(1.0)
    assert training.rows[6]["seldom"] == 0.5


def test_images_are_counted_over_ranks():
    training = Training(Recorder(), world_size=3).start()
    training.step(1.0, images=4)
    training.step(1.0, images=6)
    assert training.recorder.images_seen == 30


@pytest.mark.reliability(
    "a loss that is not finite", lost="steps since the last good checkpoint", read="step, parameters, advice"
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_first_bad_step_is_named(bad):
    training = Training(Recorder(), every=5).start()
    for loss in (1.0, 1.0, bad, float("nan")):
        training.step(loss)
    with torch.no_grad():
        training.module.layer.bias[0] = torch.nan
    with pytest.raises(
        UserError, match=r"optimizer step 3; parameters no longer finite: layer\.bias\. .*Lower optimizer\.lr or len"
    ):
        training.recorder.check(training.trainer)
    with pytest.raises(UserError, match="optimizer step 3"):
        training.step(1.0)
    assert training.rows == {}


def test_finite_losses_pass_the_check():
    training = Training(Recorder()).start()
    training.recorder.check(training.trainer)
    training.step(1e30)
    training.recorder.check(training.trainer)


@pytest.mark.parametrize("saved", range(9))
def test_resumed_recorder_writes_what_an_uninterrupted_one_would(saved):
    losses = [0.1, 0.7, 0.3, 1.9, 0.2, 0.6, 3.3, 0.1]

    def train(training, steps):
        for i in steps:
            training.step(losses[i], averages={"top1": (i % 3, i)})

    whole = Training(Recorder(), steps=8).start()
    train(whole, range(8))
    whole.end()

    first = Training(Recorder(), steps=8).start()
    train(first, range(saved))
    state = copy.deepcopy(first.recorder.state_dict())
    train(first, range(saved, 8))  # rows that the resumed run must forget
    second = Training(Recorder(), steps=8)
    second.logger.rows = first.rows
    second.recorder.load_state_dict(state)
    second.module.batches = saved
    second.start()
    train(second, range(saved, 8))
    second.end()
    assert second.rows == whole.rows
    assert list(second.rows) == [3, 6, 8]
    assert second.recorder.images_seen == whole.recorder.images_seen == 32
    assert second.recorder.train_seconds >= state["train_seconds"]
    assert second.recorder.waiting_seconds == whole.recorder.waiting_seconds == 8 * 0.25


def test_early_end_writes_its_row_once_even_if_resumed_from_before():
    first = Training(Recorder()).start()
    for loss in (1.0, 2.0, 6.0, 5.0):
        first.step(loss)
    state = copy.deepcopy(first.recorder.state_dict())
    first.end()
    assert sorted(first.rows) == [3, 4]
    second = Training(Recorder())
    second.logger.rows = first.rows
    second.recorder.load_state_dict(state)
    second.module.batches = 4
    second.start()
    assert sorted(second.rows) == [3]
    second.end()
    assert sorted(second.rows) == [3, 4]
    assert second.rows[4]["loss"] == 5


def _interval_of_two_ranks(rank, losses, top1, saved=(), resumed=None):
    """The row of rank 0 over the losses of both, and what its checkpoints hold. Checkpoints are made after the steps
    `saved`; where `resumed` is one of them, training goes on from there in new processes."""
    import torch.distributed as dist

    def reduce(x, reduce_op):
        dist.all_reduce(x, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[reduce_op])
        return x

    def training():
        return Training(Recorder(), every=len(losses), rank=rank, world_size=2, reduce=reduce)

    current = training().start()
    for step, loss in enumerate(losses, 1):
        current.step(loss[rank], averages={"top1": top1[step - 1][rank]})
        if step in saved:
            current.recorder.collect(current.trainer)
        if step == resumed:
            states = [current.recorder.state_dict()]
            dist.broadcast_object_list(states, src=0)
            current = training()
            current.recorder.load_state_dict(states[0])
            current.module.batches = step
            current.start()
    return current.rows


@pytest.mark.one_in(2)
@pytest.mark.parametrize("resumed", [None, 2])
def test_sums_of_all_ranks_survive_the_checkpoint_of_one(pair, resumed):
    losses, top1 = [(1.0, 11.0), (3.0, 13.0), (5.0, 15.0)], [((1, 4), (2, 4)), ((1, 4), (2, 4)), ((0, 8), (0, 8))]
    rows, _ = pair(_interval_of_two_ranks, losses, top1, [2], resumed)
    assert rows[3]["loss"] == 8
    assert rows[3]["top1"] == 6 / 32


def test_when_checkpoints_are_made_changes_no_bit_of_a_row(pair):
    """Sums of floats depend on their order: those of a rank are added up as if nobody had asked for them."""
    losses = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)).tolist()
    top1 = [((1, 4), (2, 4))] * len(losses)
    expected, _ = pair(_interval_of_two_ranks, losses, top1)
    for saved, resumed in (([7, 20, 33], None), ([13], 13), ([*range(1, 40)], 39)):
        rows, _ = pair(_interval_of_two_ranks, losses, top1, saved, resumed)
        assert rows == expected, (saved, resumed)


def _waiting_of_two_ranks(rank):
    """Rank 0 waits for a second in each of two steps, rank 1 for two and three; a checkpoint is made between them."""
    import torch.distributed as dist

    def reduce(x, reduce_op):
        dist.all_reduce(x, {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}[reduce_op])
        return x

    training = Training(Recorder(), rank=rank, world_size=2, reduce=reduce).start()
    training.step(1.0, waits=(1.0, 2.0)[rank])
    training.recorder.collect(training.trainer)
    saved = training.recorder.state_dict()["waiting_seconds"]
    training.step(1.0, waits=(1.0, 3.0)[rank])
    training.end()
    return saved, training.recorder.waiting_seconds


def test_of_several_processes_the_one_that_waits_longest_counts(pair):
    assert pair(_waiting_of_two_ranks) == [(2, 5), (2, 5)]


def test_a_checkpoint_of_two_processes_is_gone_on_with_by_one():
    first = Training(Recorder()).start()
    first.recorder.load_state_dict({**first.recorder.state_dict(), "sums": {"loss": torch.tensor([[1.0, 1], [4, 2]])}})
    first.start()
    first.module.batches = 2
    first.step(1.0)
    assert first.rows[3]["loss"] == 1.5
