"""The last checkpoint: when it is made, and that it is whole or the former one."""

import resource
import signal
import time
from types import SimpleNamespace
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.errors import UserError
from tests.callbacks.fitting import fit
from tests.methods.networks import smooth_simclr


class Unpicklable:
    def __reduce__(self):
        raise OSError(28, "No space left on device")


def test_failing_save_leaves_the_former_checkpoint_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"weights": torch.arange(3)}, path)
    message = rf"cannot write {path}: No space left on device\. Free .* What was in last\.ckpt before is still there\. "
    with pytest.raises(UserError, match=message + r"The checkpoint takes 4\.0 MiB, and [\d,]+ MiB are free there\."):
        io.save_checkpoint({"weights": [torch.zeros(2**20)], "broken": Unpicklable()}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.arange(3))
    assert list(path.parent.iterdir()) == [path]


def test_failing_first_save_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="No space left") as refused:
        AtomicCheckpointIO().save_checkpoint({"broken": Unpicklable()}, tmp_path / "last.ckpt")
    assert "is still there" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_torch_hides_is_said(tmp_path):
    """Its writer complains of a position, where the system has said that the file may not grow."""
    path = tmp_path / "last.ckpt"
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1][1]))
    try:
        with pytest.raises(UserError, match=rf"cannot write {path}: File too large\. .* takes 8\.0 MiB"):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(2**21)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[1])
        signal.signal(signal.SIGXFSZ, before[0])
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_can_be_read_by_whom_the_umask_allows(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({}, path)
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def saved_steps(tmp_path, every_minutes=60.0, every_steps=None, **options):
    """The optimizer steps at which a training of 6 steps saves."""
    path = tmp_path / "last.ckpt"
    steps = []

    class Noting(AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            steps.append(checkpoint["global_step"])
            super().save_checkpoint(checkpoint, path, storage_options)

    recorder = Recorder()
    last = LastCheckpoint(path, recorder, every_minutes, every_steps)
    fit(recorder, last, plugins=[Noting()], **options)
    assert not steps or torch.load(path, weights_only=True)["global_step"] == steps[-1]
    return steps


@pytest.mark.parametrize(
    ("every_minutes", "every_steps", "expected"),
    [
        (60.0, None, [6]),
        (60.0, 2, [2, 4, 6]),
        (60.0, 4, [4, 6]),
        (60.0, 7, [6]),
        (0.0, None, [2, 4, 6]),  # looked at every log_every_n_steps=2 steps
        (0.0, 3, [2, 3, 4, 6]),
    ],
)
def test_saves_every_so_often_and_at_the_end_each_step_once(tmp_path, every_minutes, every_steps, expected):
    assert saved_steps(tmp_path, every_minutes, every_steps) == expected


def test_a_rehearsal_saves_too(tmp_path):
    assert saved_steps(tmp_path, 0.0, 1, fast_dev_run=True) == [1]


class Interruption:
    """A checkpoint callback between or in steps of a trainer that only counts its saves."""

    def __init__(self, path):
        self.saves = []
        self.module = smooth_simclr()
        self.module.batches = 5
        self.trainer = Mock(
            spec=L.Trainer,
            accumulate_grad_batches=1,
            should_stop=False,
            fast_dev_run=False,
            log_every_n_steps=1000,
            save_checkpoint=lambda path: self.saves.append(self.module.steps),
        )
        self.module.trainer = self.trainer
        self.recorder = Mock(spec=Recorder)
        self.last = LastCheckpoint(path, self.recorder, 60.0, None)
        self.last.on_train_start(self.trainer, self.module)

    def step(self, finish=True):
        self.last.on_train_batch_start(self.trainer, self.module, None, 0)
        if finish:
            self.module.batches += 1
            self.last.on_train_batch_end(self.trainer, self.module, {}, None, 0)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SIGTERMException(signal.SIGTERM)], ids=["SIGINT", "SIGTERM"])
def test_interruption_saves_between_steps_but_not_within(tmp_path, stop):
    training = Interruption(tmp_path / "last.ckpt")
    training.last.on_exception(training.trainer, training.module, stop)
    assert training.saves == []  # nothing new since the start
    training.step()
    training.last.on_exception(training.trainer, training.module, stop)
    assert training.saves == [6]
    training.last.on_exception(training.trainer, training.module, stop)
    assert training.saves == [6]
    training.step(finish=False)
    training.module.batches += 1  # the optimizer has stepped, the method's after_step and the counters have not
    training.last.on_exception(training.trainer, training.module, stop)
    assert training.saves == [6]


def test_errors_save_nothing(tmp_path):
    training = Interruption(tmp_path / "last.ckpt")
    training.step()
    training.last.on_exception(training.trainer, training.module, RuntimeError("a bug"))
    assert training.saves == []


def test_no_checkpoint_after_a_loss_that_is_not_finite(tmp_path):
    training = Interruption(tmp_path / "last.ckpt")

    training.recorder.check.side_effect = UserError("The loss was not finite at optimizer step 6.")
    training.last.every_steps = 1
    with pytest.raises(UserError, match="not finite"):
        training.step()
    assert training.saves == []


def test_time_is_counted_from_the_last_save(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    training = Interruption(tmp_path / "last.ckpt")
    training.trainer.log_every_n_steps = 1
    training.trainer.strategy = SimpleNamespace(broadcast=lambda value: value)
    for now in (1000.0 + 60 * minutes for minutes in (0, 59, 60, 61, 119, 120, 200)):  # noqa: B007
        training.step()
    assert training.saves == [8, 11, 12]
