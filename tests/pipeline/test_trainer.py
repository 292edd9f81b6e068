"""Which of Lightning's settings a run may choose, and what is said of the others."""

import inspect
import os
from dataclasses import fields

import lightning as L
import pytest

from ssl_lightning.pipeline.trainer import TrainerSettings, make_trainer
from tests.composing import TINY
from tests.config.configs import forget, refused

__all__ = ["forget"]


def test_every_argument_of_lightnings_trainer_can_be_set_or_is_said_to_be_set_elsewhere():
    arguments = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    settings = {field.name for field in fields(TrainerSettings)}
    assert arguments == settings | set(TrainerSettings.ELSEWHERE)
    assert not settings & set(TrainerSettings.ELSEWHERE)


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("logger", "choose loggers by logger=wandb"),
        ("callbacks", "+callbacks.<name>._target_=module.Class"),
        ("plugins", "trainer.strategy"),
        ("enable_checkpointing", "checkpoint.every_minutes"),
        ("use_distributed_sampler", "among processes itself"),
        ("overfit_batches", "+trainer.limit_train_batches=1"),
    ],
)
def test_what_is_set_elsewhere_is_said_to_be(plus, key, instead):
    message = refused(f"{plus}trainer.{key}=1")
    assert message.startswith(f"unknown key 'trainer.{key}' (command line")
    assert instead in message
    assert "known here" not in message


def test_a_profiler_prints_its_table(command):
    done = command("ssl-train", *TINY, "subset.fraction=0.1", "+trainer.profiler=simple")
    assert done.code == 0, done.err
    assert "FIT Profiler Report" in done.out + done.err
    assert "SimCLR.optimizer_step" in done.out + done.err
    assert "should be 'simple', 'advanced' or 'pytorch'" in refused("+trainer.profiler=fast")


@pytest.mark.parametrize("limit", ["banana", "00:00:00:00", "{seconds: 0}", "{fortnights: 1}"])
def test_a_time_limit_in_which_nothing_can_be_trained_is_refused(limit, command):
    done = command("ssl-train", *TINY, f"+trainer.max_time={limit}")
    assert done.code == 1
    (line,) = (line for line in done.err.splitlines() if line.startswith("Error:"))
    assert line.startswith("Error: trainer.max_time is ")
    assert "no duration. Write DD:HH:MM:SS" in line or "in which nothing is trained" in line


def test_arguments_of_lightnings_in_the_environment_are_not_followed(monkeypatch, capsys):
    """They would change what is trained, and the identity of the run would not know."""
    monkeypatch.setenv("PL_TRAINER_LIMIT_TRAIN_BATCHES", "1")
    monkeypatch.setenv("PL_TRAINER_OVERFIT_BATCHES", "1")
    trainer = make_trainer(TrainerSettings(accelerator="cpu"), alone=False)
    assert trainer.limit_train_batches == 1.0  # all of them
    assert trainer.overfit_batches == 0
    said = capsys.readouterr().out
    assert "Not followed: PL_TRAINER_LIMIT_TRAIN_BATCHES=1, PL_TRAINER_OVERFIT_BATCHES=1." in said
    assert os.environ["PL_TRAINER_LIMIT_TRAIN_BATCHES"] == "1"
