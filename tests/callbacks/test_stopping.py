"""What training does with signals of SLURM's. The others: tests/pipeline/test_resume.py, and test_ddp.py of processes
that save together."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.stopping import Requeued, StopTogether
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import start_again
from tests.callbacks.fitting import fit


class Send(L.Callback):
    """Signals to this process in the third of six steps, and what is saved when the fourth begins."""

    def __init__(self, file: Path, *numbers: int) -> None:
        self.file, self.numbers, self.saved = file, numbers, 0

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        if trainer.global_step == 3:
            self.saved = step_in(self.file)


def step_in(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"] if file.exists() else 0


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """This process is one that submitit has started in a job of SLURM's. What its handler is called with."""
    for name, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "study", "SUBMITIT_EXECUTOR": "slurm"}.items():
        monkeypatch.setenv(name, value)
    called: list[int] = []
    former = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(number))
    yield called
    signal.signal(signal.SIGUSR2, former)


def fitted(file: Path, *numbers: int) -> tuple[L.Trainer, Send]:
    send, recorder = Send(file, *numbers), Recorder()
    checkpoint = LastCheckpoint(file, recorder, every_minutes=60, every_steps=None)
    plugins = [AtomicCheckpointIO(), LightningEnvironment()]
    return fit(send, recorder, checkpoint, StopTogether(), plugins=plugins), send


def test_at_sigterm_a_task_saves_and_goes_on(tmp_path, task, capsys):
    trainer, send = fitted(tmp_path / "last.ckpt", signal.SIGTERM)
    assert send.saved == 3
    assert trainer.global_step == step_in(tmp_path / "last.ckpt") == 6
    assert capsys.readouterr().out.count("SLURM is going to end this job: step 3 is saved.") == 1


@pytest.mark.parametrize("more", [(), (signal.SIGTERM,)], ids=["alone", "beside SIGTERM"])
def test_before_a_time_limit_a_task_saves_and_ends_before_submitit_acts(tmp_path, task, more):
    handler = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(Requeued):
        fitted(tmp_path / "last.ckpt", signal.SIGUSR2, *more)
    assert step_in(tmp_path / "last.ckpt") == 3
    assert not task
    assert signal.getsignal(signal.SIGUSR2) is handler
    with pytest.raises(SystemExit) as ended:  # as in the processes but the first
        start_again()
    assert (task, ended.value.code) == ([signal.SIGUSR2], 0)


def test_another_signal_may_be_the_one_of_submitit(tmp_path, task, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    former = signal.signal(signal.SIGUSR1, signal.getsignal(signal.SIGUSR2))
    try:
        with pytest.raises(Requeued):
            fitted(tmp_path / "last.ckpt", signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_a_job_that_does_not_start_again_says_why(task):
    def refuse(number: int, frame: object) -> None:
        raise RuntimeError("timed-out too many times.")

    signal.signal(signal.SIGUSR2, refuse)
    with pytest.raises(
        UserError, match=r"does not start again: timed-out too many times\. All is saved, .*num_timeout"
    ):
        start_again()
    signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(-1))
    with pytest.raises(SystemExit) as ended:
        start_again()
    assert ended.value.code == -1
