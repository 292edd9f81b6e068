"""Optimizer steps of several batches equal those of one."""

import contextlib
import itertools
import signal

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.data.sampler import BatchSampler
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedule import Schedule
from tests.callbacks import fitting
from tests.callbacks.test_recorder import Rows
from tests.methods.examples import Masked, Pooled

PLAIN = Augment([View(copies=2)])
RECIPE = OptimizerRecipe(
    algorithm=torch.optim.AdamW,
    lr=1e-2,
    batch_size=16,
    weight_decay=0.1,
    warmup_epochs=0.5,
    schedules={"weight_decay": Schedule(final_ratio=10.0)},
)


def supervised() -> Supervised:
    torch.manual_seed(0)
    return Supervised(Pooled(), 3, RECIPE).double()


def in_gessl() -> GeSSL:
    torch.manual_seed(0)
    return GeSSL(Supervised(Pooled(), 3).double(), tasks=1, weight_meta=0.0, optimizer=RECIPE)


class Seen(L.Callback):
    """The images of each batch, and what is in each optimizer step."""

    def __init__(self) -> None:
        self.index, self.rates, self.steps = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.index.append(batch.index.tolist())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([(group["lr"], group["weight_decay"]) for group in optimizer.param_groups])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(pl_module.steps)


class Rewindable(L.pytorch.loggers.Logger):
    """Rows by step, as metrics.csv."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.kept = Rows()

    def log_metrics(self, metrics, step=None):
        self.kept.log_metrics(metrics, step)

    def log_hyperparams(self, *_, **__):
        pass

    def rewind(self, step):
        self.kept.rewind(step)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("make", "batches_a_step"), [(supervised, 2), (supervised, 4), (supervised, 16), (in_gessl, 2), (in_gessl, 8)]
)
def test_batches_of_a_step_together_equal_the_whole(make, batches_a_step):
    methods, seen = [make(), make()], [Seen(), Seen()]
    logs = [Rewindable(), Rewindable()]
    before = [p.clone() for p in methods[0].parameters()]
    for method, watch, log, batches in zip(methods, seen, logs, (1, batches_a_step), strict=True):
        options = {"accumulate_grad_batches": batches, "logger": log}
        trainer = fitting.fit(watch, Recorder(), trained=method, augment=PLAIN, **options)
        assert (trainer.global_step, method.steps, method.batches) == (6, 6, 6 * batches)
    whole, parts = seen
    together = [
        list(itertools.chain(*parts.index[i : i + batches_a_step])) for i in range(0, len(parts.index), batches_a_step)
    ]
    assert together == whole.index
    assert parts.rates == whole.rates
    assert parts.steps == [(i + 1) // batches_a_step for i in range(6 * batches_a_step)]
    for old, one, other in zip(before, *(method.parameters() for method in methods), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
        assert not torch.equal(old, one)
    # A row counts optimizer steps, and its loss is the mean over all of their images.
    assert list(logs[0].kept.rows) == list(logs[1].kept.rows) == [2, 4, 6]
    for step, row in logs[0].kept.rows.items():
        assert logs[1].kept.rows[step] == pytest.approx(row, rel=1e-6)


def test_the_gradient_is_that_of_the_whole_to_rounding():
    gradients = []

    class Keep(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            gradients[-1].append([p.grad.clone() for p in pl_module.parameters()])

    for batches in (1, 4):
        gradients.append([])
        fitting.fit(Keep(), trained=supervised(), augment=PLAIN, accumulate_grad_batches=batches, max_steps=1)
    ((whole,), (parts,)) = gradients
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batches_a_step", [2, 4])
def test_methods_that_compare_images_refuse(batches_a_step):
    with pytest.raises(
        UserError, match=rf"accumulate_grad_batches is {batches_a_step}, but SimCLR compares .*Use a larger batch_size"
    ):
        fitting.fit(accumulate_grad_batches=batches_a_step)


def test_gessl_accumulates_as_its_base_does():
    assert GeSSL(Masked()).accumulates
    assert not GeSSL(fitting.method()).accumulates


@pytest.mark.parametrize("scheduling", [{0: 4}, {3: 2}])
@pytest.mark.parametrize("make", [supervised, fitting.method])
def test_a_number_of_batches_that_changes_is_refused_before_training(make, scheduling):
    seen = Seen()
    with pytest.raises(UserError, match=r"GradientAccumulationScheduler.*set trainer.accumulate_grad_batches"):
        fitting.fit(seen, GradientAccumulationScheduler(scheduling), trained=make())
    assert not seen.index


def test_an_epoch_of_a_broken_step_is_refused():
    with pytest.raises(UserError, match=r"limit_train_batches leaves 5 batches an epoch.*multiple of 2"):
        fitting.fit(trained=supervised(), accumulate_grad_batches=2, limit_train_batches=5, max_epochs=2)
    trainer = fitting.fit(trained=supervised(), accumulate_grad_batches=2, limit_train_batches=4, max_epochs=2)
    assert trainer.global_step == trainer.lightning_module.steps == 4
    fitting.fit(trained=supervised(), accumulate_grad_batches=4, fast_dev_run=1)


class Interrupt(L.Callback):
    """At the start of a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if pl_module.batches == self.batch:
            raise RuntimeError("killed")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("killed", [8, 9, 11, 12, 13, 16])
def test_a_resume_goes_on_with_the_samples_not_yet_seen(tmp_path, killed):
    """Whatever was accumulated of a step that had not ended is seen again."""

    def run(name, *callbacks, method=None, ckpt=None):
        seen, recorder, log = Seen(), Recorder(), Rewindable()
        last = LastCheckpoint(tmp_path / name, recorder, 60.0, 1)
        method = method or supervised()
        options = {"accumulate_grad_batches": 4, "plugins": [AtomicCheckpointIO()], "logger": log}
        with pytest.raises(RuntimeError, match=r"^killed$") if callbacks else contextlib.nullcontext():
            fitting.fit(seen, *callbacks, recorder, last, trained=method, augment=PLAIN, ckpt=ckpt, **options)
        return method, seen, log

    whole, never, rows = run("whole.ckpt")
    _, before, _ = run("killed.ckpt", Interrupt(killed))
    resumed, after, rest = run("killed.ckpt", ckpt=tmp_path / "killed.ckpt")
    done = killed // 4 * 4
    assert before.index == never.index[: len(before.index)]
    assert after.index == never.index[done:]
    assert (resumed.steps, resumed.batches) == (6, 24)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    assert rest.kept.rows.items() <= rows.kept.rows.items()
    assert 6 in rest.kept.rows


@pytest.mark.parametrize("asked", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("how", ["should_stop", "SIGTERM"])
def test_training_ends_after_a_whole_step(tmp_path, asked, how):
    recorder, stopping = Recorder(), StopTogether()

    class Ask(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.batches == asked:
                if how == "should_stop":
                    trainer.should_stop = True
                else:
                    stopping._ask(signal.SIGTERM, None)

    last = LastCheckpoint(tmp_path / "last.ckpt", recorder, 60.0, None)
    method = supervised()
    with pytest.raises(SIGTERMException) if how == "SIGTERM" else contextlib.nullcontext():
        fitting.fit(Ask(), recorder, last, stopping, trained=method, augment=PLAIN, accumulate_grad_batches=4)
    steps = -(-asked // 4)
    assert (method.steps, method.batches) == (steps, 4 * steps)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (checkpoint["batches"], checkpoint["global_step"]) == (4 * steps, steps)


def test_max_time_ends_after_a_whole_step(tmp_path):
    recorder, method = Recorder(), supervised()
    last = LastCheckpoint(tmp_path / "last.ckpt", recorder, 60.0, None)
    timer = Timer({"seconds": 1e-6}, verbose=False)
    fitting.fit(timer, recorder, last, trained=method, augment=PLAIN, accumulate_grad_batches=4)
    assert (method.steps, method.batches) == (1, 4)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["batches"] == 4


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_and_batches_of_a_step_see_each_image_once_an_epoch(world_size):
    positions = torch.arange(100, 148)
    ranks = [BatchSampler(positions, 16, 0, rank, world_size, 2) for rank in range(world_size)]
    for epoch in range(3):
        numbers = range(epoch * len(ranks[0]), (epoch + 1) * len(ranks[0]))
        seen = [position for sampler in ranks for number in numbers for position in sampler.batch(number).tolist()]
        assert sorted(seen) == positions.tolist()
    whole = BatchSampler(positions, 16, 0)
    for step in range(9):
        parts = [sampler.batch(2 * step + part) for sampler in ranks for part in range(2)]
        assert torch.equal(torch.cat(parts), whole.batch(step))


def test_a_second_training_of_a_method_counts_from_the_start():
    method = supervised()
    for _ in range(2):
        fitting.fit(trained=method, accumulate_grad_batches=2)
        assert (method.steps, method.batches) == (6, 12)
