"""Which of Lightning's settings a run may choose, and what is said of the others."""

import inspect
import os
from dataclasses import fields

import lightning as L
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.launch import fabric_of
from ssl_lightning.pipeline.trainer import TrainerSettings, make_trainer
from tests.composing import TINY
from tests.config.configs import forget, refused

__all__ = ["forget"]


def test_every_argument_of_lightnings_trainer_can_be_set_or_is_said_to_be_set_elsewhere():
    arguments = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    settings = {field.name for field in fields(TrainerSettings)}
    assert arguments == settings | set(TrainerSettings.ELSEWHERE)
    assert not settings & set(TrainerSettings.ELSEWHERE)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("logger", "choose loggers by logger=wandb"),
        ("callbacks", "+callbacks.<name>._target_=module.Class"),
        ("plugins", "trainer.strategy"),
        ("enable_checkpointing", "checkpoint.every_minutes"),
        ("use_distributed_sampler", "among processes itself"),
        ("overfit_batches", "trainer.limit_train_batches=1"),
    ],
)
def test_what_is_set_elsewhere_is_said_to_be(plus, key, instead):
    message = refused(f"{plus}trainer.{key}=1")
    assert message.startswith(f"unknown key 'trainer.{key}' (command line")
    assert instead in message
    assert "known here" not in message


NODE = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("make", [lambda settings: make_trainer(settings, alone=False), fabric_of])
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "NODE_RANK, MASTER_ADDR, MASTER_PORT are not set, .* torchrun --nnodes=2 or SLURM's srun; or set there"),
        ({**NODE, "MASTER_PORT": ""}, "trainer.num_nodes is 2, but MASTER_PORT is not set, by which"),
        ({**NODE, "NODE_RANK": "2"}, "NODE_RANK is '2', but trainer.num_nodes is 2.* from 0 to 1"),
        ({**NODE, "MASTER_PORT": "http"}, "MASTER_PORT is 'http', which is no number"),
        (NODE, None),
    ],
)
def test_nodes_that_cannot_meet_are_not_waited_for(monkeypatch, capsys, make, variables, said):
    for name in NODE:
        monkeypatch.setenv(name, variables.get(name, ""))
        if name not in variables:
            monkeypatch.delenv(name)
    settings = TrainerSettings(accelerator="cpu", num_nodes=2, strategy="ddp")
    if said is None:
        make(settings)
        assert "This is node 1 of 2 (NODE_RANK, from 0): it waits for the others, at 10.0.0.1:29500" in (
            capsys.readouterr().out
        )
        return
    with pytest.raises(UserError, match=said):
        make(settings)


@pytest.mark.parametrize("strategy", ["fsdp", "ddp_spawn", "deepspeed", "foo"])
def test_strategies_that_do_not_work_are_refused(strategy):
    said = (
        f"trainer.strategy is '{strategy}' (command line: trainer.strategy={strategy}), but it should be 'auto', 'ddp'"
    )
    assert refused(f"trainer.strategy={strategy}").startswith(said)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("limit", ["banana", "00:00:00:00", "{seconds: 0}", "{fortnights: 1}"])
def test_a_time_limit_in_which_nothing_can_be_trained_is_refused(limit, command):
    done = command("ssl-train", *TINY, f"trainer.max_time={limit}")
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
